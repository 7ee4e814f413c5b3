//! A distribution that another process goes on with: prometheus-client's own cannot be read.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts observations by the first bound that is not below them.
#[derive(Debug, Clone)]
pub struct Histogram {
    bounds: Arc<[f64]>,
    sums: Arc<Mutex<Sums>>,
}

/// What was observed, for the process that goes on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// By bound, and beyond the last one.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// Nothing was observed yet; the bounds ascend.
    pub fn new(bounds: impl IntoIterator<Item = f64>) -> Self {
        let bounds: Arc<[f64]> = bounds.into_iter().collect();
        let counts = vec![0; bounds.len() + 1];
        Self {
            bounds,
            sums: Arc::new(Mutex::new(Sums { counts, sum: 0.0 })),
        }
    }

    /// Counts one value.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        let mut sums = self.lock();
        sums.sum += value;
        if let Some(count) = sums.counts.get_mut(bucket) {
            *count += 1;
        }
    }

    /// What was observed.
    pub fn sums(&self) -> Sums {
        self.lock().clone()
    }

    /// Adds what an earlier process observed, where it had the same bounds.
    pub fn add(&self, earlier: &Sums) {
        let mut sums = self.lock();
        if earlier.counts.len() != sums.counts.len() || !(0.0..=1e15).contains(&earlier.sum) {
            return;
        }
        sums.sum += earlier.sum;
        for (count, more) in sums.counts.iter_mut().zip(&earlier.counts) {
            // All of them together stay below the largest number.
            *count = count.saturating_add((*more).min(1 << 50));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let sums = self.sums();
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(sums.counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sums.sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text;
    use prometheus_client::metrics::histogram::Histogram as Other;
    use prometheus_client::registry::{Metric, Registry};

    #[test]
    fn it_says_what_the_one_of_the_library_says_and_goes_on_elsewhere() {
        let bounds = [0.1, 1.0, 10.0];
        let (one, other) = (Histogram::new(bounds), Other::new(bounds));
        for value in [0.05, 0.1, 0.5, 1.0, 5.0, 50.0] {
            one.observe(value);
            other.observe(value);
        }
        let next = Histogram::new(bounds);
        next.add(&serde_json::from_str(&serde_json::to_string(&one.sums()).unwrap()).unwrap());
        fn of(metric: impl Metric) -> String {
            let mut registry = Registry::default();
            registry.register("x", "x", metric);
            let mut out = String::new();
            text::encode(&mut out, &registry).unwrap();
            out
        }
        let expected = of(other);
        assert!(expected.contains("le=\"+Inf\"} 6"), "{expected}");
        assert_eq!(of(one), expected);
        assert_eq!(of(next.clone()), expected);
        next.add(&Sums::default());
        assert_eq!(of(next), expected, "of other bounds");
    }
}
