//! Counters in Prometheus' text format. Invariant: no label names a link, a visitor, or anything else that grows.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub struct Metrics {
    pub answers: Answers,
    pub bytes_sent: Count,
    pub cache_hits: Count,
    pub cache_misses: Count,
    pub store_reads: Count,
    pub over_budget: Count,
    pub over_open: Count,
    pub cut_off_slow: Count,
    pub connections: Count,
}

/// By the status' class.
#[derive(Debug, Default)]
pub struct Answers([Count; 5]);

impl Answers {
    pub fn count(&self, status: u16) {
        if let Some(count) = self.0.get(usize::from(status / 100).wrapping_sub(1)) {
            count.add(1);
        }
    }
}

/// What is measured when somebody asks.
pub struct Gauges {
    pub open: u64,
    pub cache_bytes: u64,
}

impl Metrics {
    pub fn text(&self, gauges: &Gauges) -> String {
        let mut out = String::new();
        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            // Writing to a string does not fail.
            let _ = write!(out, "# HELP hushfs_gateway_{name} {help}\n# TYPE hushfs_gateway_{name} {kind}\n");
            let _ = writeln!(out, "hushfs_gateway_{name} {value}");
        };
        one("sent_bytes_total", "counter", "Bytes of packs handed to readers.", self.bytes_sent.get());
        one("cache_hits_total", "counter", "Blocks that were in memory.", self.cache_hits.get());
        one("cache_misses_total", "counter", "Blocks that were not.", self.cache_misses.get());
        one("store_reads_total", "counter", "Requests to the store for blocks.", self.store_reads.get());
        one(
            "over_budget_total",
            "counter",
            "Requests refused for a visitor's or link's budget.",
            self.over_budget.get(),
        );
        one("over_open_total", "counter", "Requests refused as too many were open.", self.over_open.get());
        one("slow_total", "counter", "Connections cut off as nobody read from them.", self.cut_off_slow.get());
        one("connections_total", "counter", "Connections that were taken.", self.connections.get());
        one("open_requests", "gauge", "Requests that are being answered.", gauges.open);
        one("cache_bytes", "gauge", "Bytes of blocks in memory.", gauges.cache_bytes);
        let _ = write!(
            out,
            "# HELP hushfs_gateway_answers_total Answers by class of status.\n# TYPE hushfs_gateway_answers_total counter\n"
        );
        for (index, count) in self.answers.0.iter().enumerate() {
            let _ = writeln!(out, "hushfs_gateway_answers_total{{class=\"{}xx\"}} {}", index + 1, count.get());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_comment_or_a_number() {
        let metrics = Metrics::default();
        metrics.answers.count(206);
        metrics.answers.count(404);
        metrics.answers.count(9999);
        metrics.bytes_sent.add(7);
        let text = metrics.text(&Gauges { open: 1, cache_bytes: 2 });
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.split_once(' ').unwrap();
            assert!(name.starts_with("hushfs_gateway_") && value.parse::<u64>().is_ok(), "{line}");
        }
        assert!(text.contains("answers_total{class=\"2xx\"} 1\n") && text.contains("answers_total{class=\"5xx\"} 0\n"));
        assert!(
            text.contains("hushfs_gateway_sent_bytes_total 7\n") && text.contains("hushfs_gateway_open_requests 1\n")
        );
    }
}
