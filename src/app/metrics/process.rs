//! What `/metrics` tells of the process, under the names that every Prometheus client library uses.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::fs;
use std::time::Duration;

/// Reads the kernel's figures at each scrape; what it does not tell is left out.
#[derive(Debug)]
pub(super) struct Process {
    /// Unix seconds.
    pub(super) started: u64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let cpu = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
        let help = "CPU time of all threads, in the program and in the kernel";
        let counter = MetricType::Counter;
        let descriptor = encoder.encode_descriptor("process_cpu_seconds", help, None, counter)?;
        ConstCounter::new(cpu.as_secs_f64()).encode(descriptor)?;
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Memory that is in RAM",
                resident_bytes(),
            ),
            (
                "process_open_fds",
                "Open file descriptors",
                open_descriptors(),
            ),
            (
                "process_max_fds",
                "File descriptors that the process may open",
                getrlimit(Resource::Nofile).current,
            ),
            (
                "process_start_time_seconds",
                "When the box started, in Unix seconds",
                Some(self.started),
            ),
        ] {
            let Some(value) = value else { continue };
            let value = ConstGauge::new(value);
            value.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Linux 6.2 and later tell the number as the directory's size; before that it is 0, and counting
/// is all there is.
fn open_descriptors() -> Option<u64> {
    let directory = "/proc/self/fd";
    match fs::metadata(directory).ok()?.len() {
        0 => Some(fs::read_dir(directory).ok()?.count() as u64),
        size => Some(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    #[test]
    fn the_kernel_tells_every_figure() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process { started: 7 }));
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        let value = |name: &str| -> f64 {
            let line = out.lines().find(|l| l.starts_with(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name} is missing:\n{out}"))[name.len() + 1..]
                .parse()
                .unwrap()
        };
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_open_fds") <= value("process_max_fds"));
        assert_eq!(value("process_start_time_seconds"), 7.0);
    }
}
