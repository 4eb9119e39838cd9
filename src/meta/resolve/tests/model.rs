//! A tree as POSIX has it.

use std::collections::{BTreeMap, BTreeSet};

use super::Piece;
use crate::format::rows::mode;

pub const UNIT: u64 = 512 << 10;
const ROOT: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Missing,
    Exists,
    Other,
    NotDirectory,
    IsDirectory,
    NotEmpty,
    Cycle,
}

type Place = (u64, u8);

#[derive(Default)]
struct Node {
    kind: u32,
    entries: BTreeMap<u8, u64>,
    links: u32,
    size: u64,
    /// Where each unit of a file comes from: a chunk, and which of its units.
    units: Vec<Option<(u64, u64)>>,
    version: u64,
    xattrs: BTreeSet<u8>,
}

pub struct Model(BTreeMap<u64, Node>);

impl Model {
    pub fn new() -> Self {
        Self(BTreeMap::from([(ROOT, Node { kind: mode::DIR, links: 1, ..Node::default() })]))
    }

    pub fn exists(&self, ino: u64) -> bool {
        self.0.contains_key(&ino)
    }

    pub fn entry(&self, parent: u64, name: u8) -> Option<u64> {
        self.0.get(&parent)?.entries.get(&name).copied()
    }

    pub fn names(&self) -> Vec<(u64, u8, u64)> {
        let of = |(&parent, node): (&u64, &Node)| -> Vec<_> {
            node.entries.iter().map(|(&name, &ino)| (parent, name, ino)).collect()
        };
        self.0.iter().flat_map(of).collect()
    }

    pub fn directories(&self) -> Vec<u64> {
        self.0.iter().filter(|(_, node)| node.kind == mode::DIR).map(|(&ino, _)| ino).collect()
    }

    pub fn files(&self) -> Vec<u64> {
        self.0.iter().filter(|(_, node)| node.kind == mode::FILE).map(|(&ino, _)| ino).collect()
    }

    pub fn version(&self, ino: u64) -> u64 {
        self.0[&ino].version
    }

    pub fn content(&self, ino: u64) -> (u64, &Vec<Option<(u64, u64)>>) {
        (self.0[&ino].size, &self.0[&ino].units)
    }

    pub fn create(&mut self, parent: u64, name: u8, ino: u64, kind: u32) -> Result<(), Refused> {
        self.free(parent, name)?;
        self.0.insert(ino, Node { kind, links: 1, ..Node::default() });
        self.dir(parent)?.entries.insert(name, ino);
        Ok(())
    }

    pub fn link(&mut self, ino: u64, parent: u64, name: u8) -> Result<(), Refused> {
        self.free(parent, name)?;
        let node = self.0.get_mut(&ino).ok_or(Refused::Missing)?;
        if node.kind == mode::DIR {
            return Err(Refused::IsDirectory);
        }
        node.links += 1;
        self.dir(parent)?.entries.insert(name, ino);
        Ok(())
    }

    pub fn unlink(&mut self, parent: u64, name: u8) -> Result<(), Refused> {
        let ino = self.taken(parent, name)?;
        if !self.0[&ino].entries.is_empty() {
            return Err(Refused::NotEmpty);
        }
        self.remove(parent, name, ino);
        Ok(())
    }

    pub fn rename(&mut self, from: Place, to: Place) -> Result<(), Refused> {
        let ino = self.taken(from.0, from.1)?;
        self.dir(to.0)?;
        let replaced = self.entry(to.0, to.1);
        if replaced == Some(ino) {
            return Ok(());
        }
        let is_dir = |ino: u64| self.0[&ino].kind == mode::DIR;
        if is_dir(ino) && self.inside(to.0, ino) {
            return Err(Refused::Cycle);
        }
        if let Some(replaced) = replaced {
            match (is_dir(ino), is_dir(replaced)) {
                (true, false) => return Err(Refused::NotDirectory),
                (false, true) => return Err(Refused::IsDirectory),
                _ if !self.0[&replaced].entries.is_empty() => return Err(Refused::NotEmpty),
                _ => self.remove(to.0, to.1, replaced),
            }
        }
        self.dir(from.0)?.entries.remove(&from.1);
        self.dir(to.0)?.entries.insert(to.1, ino);
        Ok(())
    }

    pub fn exchange(&mut self, a: Place, b: Place) -> Result<(), Refused> {
        let a_ino = self.taken(a.0, a.1)?;
        let b_ino = self.taken(b.0, b.1)?;
        if a.0 != b.0 {
            for (ino, parent) in [(a_ino, b.0), (b_ino, a.0)] {
                if self.0[&ino].kind == mode::DIR && self.inside(parent, ino) {
                    return Err(Refused::Cycle);
                }
            }
        }
        self.dir(a.0)?.entries.insert(a.1, b_ino);
        self.dir(b.0)?.entries.insert(b.1, a_ino);
        Ok(())
    }

    pub fn set_xattr(&mut self, ino: u64, name: u8, some: bool) -> Result<(), Refused> {
        let xattrs = &mut self.0.get_mut(&ino).ok_or(Refused::Missing)?.xattrs;
        if some {
            xattrs.insert(name);
        } else if !xattrs.remove(&name) {
            return Err(Refused::Missing);
        }
        Ok(())
    }

    pub fn write(&mut self, ino: u64, size: u64, pieces: &[Piece]) {
        let node = self.0.get_mut(&ino).unwrap();
        node.version += 1;
        for &piece in pieces {
            let (at, len) = match piece {
                Piece::Extent { at, len, .. } | Piece::Hole { at, len } => (at, len),
            };
            for i in 0..len {
                let unit = (at + i) as usize;
                if node.units.len() <= unit {
                    node.units.resize(unit + 1, None);
                }
                node.units[unit] = match piece {
                    Piece::Extent { chunk, from, .. } => Some((chunk, from + i)),
                    Piece::Hole { .. } => None,
                };
            }
        }
        node.units.resize(size as usize, None);
        node.size = size;
    }

    fn dir(&mut self, ino: u64) -> Result<&mut Node, Refused> {
        match self.0.get_mut(&ino) {
            None => Err(Refused::Missing),
            Some(node) if node.kind != mode::DIR => Err(Refused::NotDirectory),
            Some(node) => Ok(node),
        }
    }

    fn free(&mut self, parent: u64, name: u8) -> Result<(), Refused> {
        if self.dir(parent)?.entries.contains_key(&name) { Err(Refused::Exists) } else { Ok(()) }
    }

    fn taken(&mut self, parent: u64, name: u8) -> Result<u64, Refused> {
        self.dir(parent)?.entries.get(&name).copied().ok_or(Refused::Missing)
    }

    fn remove(&mut self, parent: u64, name: u8, ino: u64) {
        self.0.get_mut(&parent).unwrap().entries.remove(&name);
        let node = self.0.get_mut(&ino).unwrap();
        node.links -= 1;
        if node.links == 0 {
            self.0.remove(&ino);
        }
    }

    /// Whether `ino` is `dir` or inside it.
    fn inside(&self, ino: u64, dir: u64) -> bool {
        ino == dir
            || self
                .0
                .iter()
                .any(|(&above, node)| node.entries.values().any(|&child| child == ino) && self.inside(above, dir))
    }
}
