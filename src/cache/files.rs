//! The cache's files: one sparse file for each pack, `<incarnation>-<number>`, opened on demand.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use lru::LruCache;
use parking_lot::Mutex;

use crate::base::{BLOCK_LEN, ByteRange, Incarnation, PackName};
use crate::disk::{Disk, DiskFile};

/// A process may have 1,024 descriptors by default, and others need some too.
const OPEN_FILES_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

pub struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    open: Mutex<LruCache<PackName, Arc<dyn DiskFile>>>,
}

/// What a restart finds of one pack.
pub struct Found {
    pub pack: PackName,
    pub modified: SystemTime,
    /// Blocks that are there as a whole, with their lengths.
    pub blocks: Vec<(u32, u32)>,
}

impl Files {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir, open: Mutex::new(LruCache::new(OPEN_FILES_MAX)) }
    }

    pub fn read(&self, pack: PackName, range: ByteRange) -> io::Result<Vec<u8>> {
        self.file(pack, false)?.read_range(range)
    }

    pub fn write(&self, pack: PackName, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file(pack, true)?.write_all_at(bytes, offset)
    }

    pub fn punch(&self, pack: PackName, range: ByteRange) -> io::Result<()> {
        self.file(pack, false)?.punch_hole(range)
    }

    pub fn remove(&self, pack: PackName) -> io::Result<()> {
        self.open.lock().pop(&pack);
        self.disk.remove(&self.path(pack))
    }

    /// Moves a whole pack in; by copying where the two are on different filesystems.
    pub fn adopt(&self, pack: PackName, staged: &Path, len: u64) -> io::Result<()> {
        self.open.lock().pop(&pack);
        match self.disk.rename(staged, &self.path(pack)) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.copy(pack, staged, len)?;
                self.disk.remove(staged)
            }
            result => result,
        }
    }

    pub fn discard(&self, staged: &Path) {
        if let Err(error) = self.disk.remove(staged)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %staged.display(), %error, "a staged pack that is stored cannot be removed");
        }
    }

    /// Makes the folder when it is missing, and tells what it holds. A file that cannot be read is left out.
    pub fn scan(&self) -> io::Result<Vec<io::Result<Found>>> {
        self.disk.create_dir_all(&self.dir)?;
        let packs = self.disk.list(&self.dir)?.into_iter();
        let packs = packs.filter_map(|entry| Some((parse_name(entry.name.to_str()?)?, entry.modified)));
        let look = |(pack, modified)| {
            let file = self.disk.open(&self.path(pack), false)?;
            let blocks = whole_blocks(file.len()?, &file.data_ranges()?);
            Ok(Found { pack, modified, blocks })
        };
        Ok(packs.map(look).collect())
    }

    fn copy(&self, pack: PackName, staged: &Path, len: u64) -> io::Result<()> {
        let (from, to) = (self.disk.open(staged, false)?, self.file(pack, true)?);
        let mut buffer = vec![0; BLOCK_LEN as usize];
        let mut at = 0;
        while at < len {
            let part = (len - at).min(BLOCK_LEN) as usize;
            from.read_exact_at(&mut buffer[..part], at)?;
            to.write_all_at(&buffer[..part], at)?;
            at += part as u64;
        }
        Ok(())
    }

    fn file(&self, pack: PackName, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open.lock().get(&pack) {
            return Ok(file.clone());
        }
        let file = self.disk.open(&self.path(pack), create)?;
        self.open.lock().put(pack, file.clone());
        Ok(file)
    }

    fn path(&self, pack: PackName) -> PathBuf {
        self.dir.join(format!("{}-{}", pack.incarnation, pack.number))
    }
}

fn parse_name(name: &str) -> Option<PackName> {
    let (incarnation, number) = name.split_once('-')?;
    let pack = PackName { incarnation: Incarnation::parse_hex(incarnation)?, number: number.parse().ok()? };
    (format!("{}-{}", pack.incarnation, pack.number) == name).then_some(pack)
}

/// Blocks that data covers up to their end, or the file's.
fn whole_blocks(len: u64, ranges: &[ByteRange]) -> Vec<(u32, u32)> {
    let mut blocks = Vec::new();
    for range in ranges {
        let first = range.start.div_ceil(BLOCK_LEN);
        for block in first..range.end.div_ceil(BLOCK_LEN) {
            let end = ((block + 1) * BLOCK_LEN).min(len);
            let start = block * BLOCK_LEN;
            if end <= range.end && start < end {
                blocks.push((block as u32, (end - start) as u32));
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_that_are_there_as_a_whole_are_found() {
        let block = BLOCK_LEN;
        let ranges = [
            ByteRange::new(0, block),
            ByteRange::new(2 * block + 4096, 4 * block),
            ByteRange::new(5 * block, 5 * block + 100),
        ];
        let len = 5 * block + 100;
        assert_eq!(whole_blocks(len, &ranges), [(0, block as u32), (3, block as u32), (5, 100)]);
        assert_eq!(whole_blocks(0, &[]), []);
    }

    #[test]
    fn a_pack_has_one_file_name() {
        let pack = PackName { incarnation: Incarnation([7; 16]), number: 12 };
        assert_eq!(parse_name(&format!("{}-12", pack.incarnation)), Some(pack));
        for wrong in ["", "-1", "07-1", "x", &format!("{}-012", pack.incarnation), &format!("{}-+1", pack.incarnation)]
        {
            assert_eq!(parse_name(wrong), None, "{wrong}");
        }
    }
}
