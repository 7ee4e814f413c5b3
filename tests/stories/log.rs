//! What strangers make the box write down.

use crate::harness::{Process, TIMEOUT};
use crate::http::send;
use std::time::Instant;

const FOREIGN: &str = "Origin: https://foreign.example\r\n";
/// Of one cause, before it is bounded to one each second.
const BURST: usize = 100;

#[tokio::test]
async fn a_line_that_a_stranger_provokes_is_bounded_and_what_is_left_out_is_counted() {
    let began = Instant::now();
    let (callbox, log) = Process::start_with_log(&[]);
    let provoke = async || {
        let refused = send(&callbox, "GET", "/v1/ice-servers", FOREIGN, "").await;
        assert_eq!(refused.0, 403);
    };
    for _ in 0..3 * BURST {
        provoke().await;
    }
    let mut written = 0;
    // The count comes with the next line of the cause.
    let counted = loop {
        assert!(began.elapsed() < TIMEOUT, "no count after {written} lines");
        provoke().await;
        let mut lines = log.try_iter();
        let counted = lines.by_ref().find(|line| {
            written += usize::from(line.contains("foreign.example"));
            line.contains("left out")
        });
        if let Some(line) = counted {
            break line;
        }
    };
    assert!(written <= BURST + began.elapsed().as_secs() as usize + 1);
    let count = counted.split("left_out=").nth(1).expect(&counted);
    let digits: String = count.chars().filter(char::is_ascii_digit).collect();
    assert!(digits.parse::<usize>().unwrap() >= 1, "{counted}");
}
