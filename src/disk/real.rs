//! The disk of this machine.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::{DirEntry, Disk, DiskFile};
use crate::base::{ByteRange, MIB};

#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

struct RealFile(File);

impl Disk for RealDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let missing = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).count();
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // Each new name is in the directory above it.
        for made in dir.ancestors().take(missing) {
            self.sync_dir(made.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // A file may be removed between the listing and the question.
            match entry.metadata() {
                Ok(meta) if meta.is_file() => {
                    entries.push(DirEntry { name: entry.file_name(), len: meta.len(), modified: meta.modified()? });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn filesystem(&self, dir: &Path) -> io::Result<u64> {
        Ok(fs::metadata(dir)?.dev())
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Into memory that nobody has cleared before: that took a sixth of a large read's time.
    fn read_range(&self, range: ByteRange) -> io::Result<Vec<u8>> {
        let len = range.len() as usize;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            // The capacity may be more than was asked for.
            let (at, before) = (range.start + bytes.len() as u64, bytes.len());
            match rustix::io::pread(&self.0, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(_) if bytes.len() == before => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn preallocate_written(&self, len: u64) -> io::Result<()> {
        let zeros = vec![0; MIB as usize];
        let mut at = self.len()?;
        while at < len {
            let piece = (len - at).min(MIB);
            self.0.write_all_at(&zeros[..piece as usize], at)?;
            at += piece;
        }
        Ok(())
    }

    fn punch_hole(&self, range: ByteRange) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.0, flags, range.start, range.len())?)
    }

    fn data_ranges(&self) -> io::Result<Vec<ByteRange>> {
        let mut ranges = Vec::new();
        let mut at = 0;
        loop {
            // Nothing reads or writes through the cursor that these move: all else here is positioned.
            let start = match rustix::fs::seek(&self.0, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => return Ok(ranges),
                Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                    let len = self.len()?;
                    return Ok((len > 0).then_some(ByteRange { start: 0, end: len }).into_iter().collect());
                }
                Err(error) => return Err(error.into()),
            };
            let end = rustix::fs::seek(&self.0, SeekFrom::Hole(start))?;
            if end <= start {
                return Ok(ranges);
            }
            ranges.push(ByteRange { start, end });
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BLOCK_LEN, KIB};

    #[test]
    fn a_punched_hole_reads_as_zeros_and_is_no_data() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("f"), true).unwrap();
        file.write_all_at(&vec![7; 3 * BLOCK_LEN as usize], 0).unwrap();
        file.punch_hole(ByteRange::new(BLOCK_LEN, 2 * BLOCK_LEN)).unwrap();
        assert_eq!(file.len().unwrap(), 3 * BLOCK_LEN);
        let ranges = file.data_ranges().unwrap();
        assert_eq!(ranges, [ByteRange::new(0, BLOCK_LEN), ByteRange::new(2 * BLOCK_LEN, 3 * BLOCK_LEN)]);
        let mut block = vec![1; BLOCK_LEN as usize];
        file.read_exact_at(&mut block, BLOCK_LEN).unwrap();
        assert!(block.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn preallocation_keeps_what_is_there_and_leaves_no_hole() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("f"), true).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.preallocate_written(3 * MIB + KIB).unwrap();
        file.preallocate_written(KIB).unwrap();
        assert_eq!(file.len().unwrap(), 3 * MIB + KIB);
        assert_eq!(file.data_ranges().unwrap(), [ByteRange::new(0, 3 * MIB + KIB)]);
        let mut head = [0; 6];
        file.read_exact_at(&mut head, 0).unwrap();
        assert_eq!(&head, b"begin\0");
    }

    #[test]
    fn reading_past_the_end_is_short_and_a_missing_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(RealDisk.open(&dir.path().join("f"), false).err().unwrap().kind(), io::ErrorKind::NotFound);
        let file = RealDisk.open(&dir.path().join("f"), true).unwrap();
        file.write_all_at(b"abc", 2).unwrap();
        let mut buf = [9; 8];
        assert_eq!(file.read_at(&mut buf, 1).unwrap(), 4);
        assert_eq!(&buf[..4], b"\0abc");
        assert_eq!(file.read_at(&mut buf, 5).unwrap(), 0);
        assert!(file.read_exact_at(&mut buf, 1).is_err());
    }

    #[test]
    fn files_are_private_and_listed_without_directories() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("a/b");
        RealDisk.create_dir_all(&sub).unwrap();
        assert_eq!(fs::metadata(&sub).unwrap().permissions().mode() & 0o777, 0o700);
        RealDisk.open(&sub.join("f"), true).unwrap().set_len(5).unwrap();
        RealDisk.create_dir_all(&sub.join("c")).unwrap();
        let listed = RealDisk.list(&sub).unwrap();
        assert_eq!(listed.iter().map(|e| (e.name.to_str().unwrap(), e.len)).collect::<Vec<_>>(), [("f", 5)]);
        assert_eq!(fs::metadata(sub.join("f")).unwrap().permissions().mode() & 0o777, 0o600);
        RealDisk.sync_dir(&sub).unwrap();
        assert!(RealDisk.free_bytes(&sub).unwrap() > 0);
    }
}
