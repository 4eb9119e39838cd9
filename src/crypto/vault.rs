//! Memory for keys: pages apart from the heap, locked so that they are never swapped, left out of core dumps, each
//! cell wiped when it is given back.
//!
//! Where the process may lock no more (RLIMIT_MEMLOCK) the cells are used all the same: a key that might be swapped
//! serves its user better than a drive that does not mount. Ciphers keep schedules of their own that are made from
//! keys, on the heap, and wipe those themselves.

use std::ptr::NonNull;

use parking_lot::Mutex;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous};
use zeroize::Zeroize;

pub(super) const CELL_LEN: usize = 32;
/// A page has at least this on every machine; larger pages are locked whole.
const PAGE_LEN: usize = 4096;

const _: () = assert!(PAGE_LEN.is_multiple_of(CELL_LEN));

static FREE: Mutex<Vec<Address>> = Mutex::new(Vec::new());

/// 32 bytes in such a page, its own until dropped.
pub(super) struct Cell(Address);

struct Address(NonNull<[u8; CELL_LEN]>);

// SAFETY: an address is owned by one `Cell` or by the free list; nothing about it belongs to a thread.
unsafe impl Send for Address {}
// SAFETY: shared access to a cell only reads.
unsafe impl Sync for Address {}

impl Cell {
    pub fn zeroed() -> Self {
        Self(take())
    }

    pub fn get(&self) -> &[u8; CELL_LEN] {
        // SAFETY: the page is mapped for ever and readable, and no one else has this cell.
        unsafe { self.0.0.as_ref() }
    }

    pub fn get_mut(&mut self) -> &mut [u8; CELL_LEN] {
        // SAFETY: as `get`, and `self` is borrowed alone.
        unsafe { self.0.0.as_mut() }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.get_mut().zeroize();
        FREE.lock().push(Address(self.0.0));
    }
}

fn take() -> Address {
    let mut free = FREE.lock();
    match free.pop() {
        Some(address) => address,
        None => {
            let page = new_page();
            for at in (CELL_LEN..PAGE_LEN).step_by(CELL_LEN) {
                // SAFETY: within the page.
                free.push(Address(unsafe { page.byte_add(at) }.cast()));
            }
            Address(page.cast())
        }
    }
}

/// Of zeros.
fn new_page() -> NonNull<u8> {
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let mapped = unsafe {
        mmap_anonymous(std::ptr::null_mut(), PAGE_LEN, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    };
    let Some(page) = mapped.ok().and_then(|page| NonNull::new(page.cast::<u8>())) else {
        // As the allocator does when there is no memory.
        std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; PAGE_LEN]>());
    };
    // SAFETY: the page was mapped just now, and both only change how the kernel treats it.
    unsafe {
        let locked = mlock(page.as_ptr().cast(), PAGE_LEN);
        let hidden = madvise(page.as_ptr().cast(), PAGE_LEN, Advice::LinuxDontDump);
        if let Some(error) = locked.err().or(hidden.err()) {
            tracing::debug!(%error, "a page for keys could not be locked or hidden from core dumps");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_wiped_when_it_is_given_back() {
        let mut cell = Cell::zeroed();
        const SECRET: &[u8; CELL_LEN] = b"this was a key and must be wiped";
        cell.get_mut().copy_from_slice(SECRET);
        let address = cell.0.0;
        drop(cell);
        // SAFETY: pages stay mapped; whoever has the cell by now does not have this in it.
        assert_ne!(unsafe { *address.as_ptr() }, *SECRET);
    }

    #[test]
    fn cells_are_apart_and_begin_as_zeros() {
        let mut cells: Vec<Cell> = (0..300).map(|_| Cell::zeroed()).collect();
        assert!(cells.iter().all(|cell| *cell.get() == [0; CELL_LEN]));
        for (index, cell) in cells.iter_mut().enumerate() {
            cell.get_mut().fill(index as u8);
        }
        assert!(cells.iter().enumerate().all(|(index, cell)| *cell.get() == [index as u8; CELL_LEN]));
    }

    #[test]
    fn a_page_of_keys_is_locked_and_left_out_of_core_dumps() {
        let cell = Cell::zeroed();
        let address = cell.0.0.as_ptr() as usize;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        let flags = maps.lines().find_map(|line| {
            if let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-'))
                && let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
            {
                inside = (start..end).contains(&address);
            }
            line.strip_prefix("VmFlags:").filter(|_| inside)
        });
        let flags: Vec<&str> = flags.unwrap().split_whitespace().collect();
        assert!(flags.contains(&"dd"), "{flags:?}");
        // Where the process may lock nothing, it does not.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
        assert!(flags.contains(&"lo") || limit.is_some_and(|bytes| bytes < PAGE_LEN as u64), "{flags:?}");
    }
}
