//! Layers of changed rows, and how they are read over one another.
//!
//! Invariant: a layer that is above wins, and a removed row hides those below it.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::error::MetaError;
use super::rows::{RowChanges, Rows};
use crate::format::rows::KeyBytes;

/// Changed rows in memory; None is a removed one.
pub type Layer = BTreeMap<KeyBytes, Option<Vec<u8>>>;

/// What one layer says of a range, in key order.
pub(super) type LayerPage = Vec<(KeyBytes, Option<Vec<u8>>)>;

/// Intents that see one another: rows over others that nobody else sees yet.
pub struct Scratch<'a> {
    below: &'a dyn Rows,
    above: Layer,
}

impl<'a> Scratch<'a> {
    pub fn new(below: &'a dyn Rows) -> Self {
        Self { below, above: Layer::new() }
    }

    pub fn apply(&mut self, changes: RowChanges) {
        self.above.extend(changes);
    }

    pub fn into_changes(self) -> RowChanges {
        self.above.into_iter().collect()
    }
}

impl Rows for Scratch<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MetaError> {
        match self.above.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.below.get(key),
        }
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<(KeyBytes, Vec<u8>)>, MetaError> {
        merge(after, limit, 2, |layer, after, want| match layer {
            0 => Ok(layer_page(&self.above, prefix, after, want)),
            _ => Ok(live(self.below.scan(prefix, after, want)?)),
        })
    }
}

/// The first key that a scan may meet, and the first behind all of them (None: there is none).
pub(super) fn bounds(prefix: &[u8], after: Option<&[u8]>) -> (Vec<u8>, Option<Vec<u8>>) {
    // The next key in byte order is the same with a zero byte.
    let start = after.map_or_else(Vec::new, |after| [after, &[0]].concat()).max(prefix.to_vec());
    let end = prefix.iter().rposition(|&byte| byte != 0xff).map(|last| {
        let mut end = prefix[..=last].to_vec();
        end[last] += 1;
        end
    });
    (start, end)
}

pub(super) fn layer_page(layer: &Layer, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> LayerPage {
    let (start, end) = bounds(prefix, after);
    let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    // A start behind the end, which a range would panic at, has no keys.
    if matches!(end, Bound::Excluded(end) if end <= start.as_slice()) {
        return Vec::new();
    }
    let range = layer.range::<[u8], _>((Bound::Included(start.as_slice()), end));
    range.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
}

pub(super) fn live(rows: Vec<(KeyBytes, Vec<u8>)>) -> LayerPage {
    rows.into_iter().map(|(key, value)| (key, Some(value))).collect()
}

/// At most `limit` rows of `layers` layers, number 0 on top. `page(layer, after, want)` gives what a layer
/// says of the keys behind `after`, at most `want` of them; fewer mean that these were the last.
pub(super) fn merge(
    after: Option<&[u8]>,
    limit: usize,
    layers: usize,
    mut page: impl FnMut(usize, Option<&[u8]>, usize) -> Result<LayerPage, MetaError>,
) -> Result<Vec<(KeyBytes, Vec<u8>)>, MetaError> {
    const PAGE_MIN: usize = 16;
    const PAGE_MAX: usize = 4096;
    let mut out: Vec<(KeyBytes, Vec<u8>)> = Vec::new();
    let mut after = after.map(<[u8]>::to_vec);
    while out.len() < limit {
        // One row asked for is mostly one row met: tombstones are rare.
        let want = (limit - out.len()).clamp(if limit == 1 { 2 } else { PAGE_MIN }, PAGE_MAX);
        let mut merged = Layer::new();
        // Behind this key some layer has rows that its page did not reach.
        let mut horizon: Option<KeyBytes> = None;
        for layer in (0..layers).rev() {
            let rows = page(layer, after.as_deref(), want)?;
            if rows.len() >= want
                && let Some((last, _)) = rows.last()
                && horizon.as_ref().is_none_or(|horizon| last < horizon)
            {
                horizon = Some(last.clone());
            }
            merged.extend(rows);
        }
        let reached = |key: &KeyBytes| horizon.as_ref().is_none_or(|horizon| key <= horizon);
        let rows =
            merged.into_iter().take_while(|(key, _)| reached(key)).filter_map(|(key, value)| Some((key, value?)));
        out.extend(rows.take(limit - out.len()));
        let Some(horizon) = horizon else { break };
        after = Some(horizon);
    }
    Ok(out)
}
