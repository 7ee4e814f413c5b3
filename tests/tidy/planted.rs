//! Faults that are planted, to see that each is found: behind test items, in groups, in macros, under
//! other names.

use super::{Source, circles, impurities, unsafe_code, wrong_arrows};

/// What a search for the first `#[cfg(test)]` took for the end of the product.
const TEST_ITEM: &str = "//! A module.\n#[cfg(test)]\nuse std::sync::Mutex;\n#[cfg(test)]\nfn test_only() { unsafe { lost() } }\n";

fn planted(path: &str, code: &str) -> Vec<Source> {
    // The parts of the program that the code may name.
    let others = ["app", "cli", "signal", "relay", "http", "protocol"];
    let mut sources: Vec<Source> = others
        .map(|name| Source::new(&format!("src/{name}.rs"), "//! A part.\n".into()))
        .into();
    sources.push(Source::new(path, format!("{TEST_ITEM}{code}")));
    sources
}

/// Lines of the planted code, counted from 1.
fn line(findings: &[String]) -> Vec<usize> {
    let skipped = TEST_ITEM.lines().count();
    let numbers = findings.iter().map(|finding| {
        let number = finding.split(':').nth(1).unwrap();
        number.parse::<usize>().unwrap() - skipped
    });
    numbers.collect()
}

#[test]
fn test_items_are_no_findings() {
    let sources = planted("src/signal/hub/planted.rs", "fn pure() {}");
    assert_eq!(impurities(&sources), Vec::<String>::new());
    assert_eq!(unsafe_code(&sources), Vec::<String>::new());
}

#[test]
fn unsafe_code_is_found_wherever_it_stands() {
    for code in [
        "fn f() { unsafe { g() } }",
        "unsafe fn f() {}",
        "unsafe impl Send for X {}",
        "fn f() { vec![unsafe { g() }]; }",
        "fn f() { match x { 1 => unsafe { g() }, _ => {} } }",
    ] {
        let found = unsafe_code(&planted("src/relay/handle.rs", code));
        // In the wrong place, and without a reason.
        assert_eq!(line(&found), [1, 1], "{code}: {found:?}");
    }
    let reasoned = "fn f() {\n// SAFETY: it is.\nunsafe { g() } }";
    assert!(unsafe_code(&planted("src/relay/io/udp/planted.rs", reasoned)).is_empty());
}

#[test]
fn clocks_locks_sockets_and_randomness_are_found_in_pure_modules() {
    for code in [
        "fn f() { std::time::Instant::now(); }",
        "use std::time::Instant as I; fn f() { I::now(); }",
        "use std::time; fn f() { time::SystemTime::now(); }",
        "fn f(x: std::sync::Mutex<u8>) {}",
        "use std::{fmt, sync::{Arc, RwLock}};",
        "fn f() { println!(\"{}\", rand::random::<u8>()); }",
        "use rand::random; fn f() { let x: u8 = random(); }",
        "use tokio as t; fn f() { t::spawn(g()); }",
        "fn f() { let x = vec![std::net::UdpSocket::bind(a)]; }",
        "fn f(then: std::time::Instant) { then.elapsed(); }",
        "fn f() { std::env::var(\"X\"); }",
        "use rand::rngs::SysRng; fn f() { SysRng.try_next_u64(); }",
        "fn f(mut rng: rand::rngs::ThreadRng) { rng.next_u64(); }",
        "fn f() -> StdRng { rand::make_rng() }",
        "fn f() { rand::fill(&mut [0; 8]); }",
        "fn f() { rand::random_bool(0.5); }",
        "fn f() { rand::random_iter::<u8>().next(); }",
        "use rand::random_range as roll; fn f() { roll(1..=6); }",
        "use rand::*; fn f() { random_ratio(1, 6); }",
        "fn f() { getrandom::u64(); }",
    ] {
        let found = impurities(&planted("src/signal/hub/planted.rs", code));
        assert!(!found.is_empty(), "{code}");
        assert!(line(&found).iter().all(|line| *line == 1), "{found:?}");
        assert!(impurities(&planted("src/http/planted.rs", code)).is_empty());
    }
}

#[test]
fn locks_are_found_in_the_engine_and_allowed_in_what_its_workers_share() {
    let lock = "fn f(x: std::sync::Mutex<u8>) {}";
    let clock = "fn f() { std::time::Instant::now(); }";
    for path in [
        "crates/turn-engine/src/engine/planted.rs",
        "crates/turn-engine/src/engine/policy/planted.rs",
        "crates/turn-engine/src/rate.rs",
    ] {
        for code in [lock, clock] {
            let found = impurities(&planted(path, code));
            assert_eq!(line(&found), [1], "{path}: {code}");
        }
    }
    let shared = "crates/turn-engine/src/shared/planted.rs";
    assert_eq!(impurities(&planted(shared, lock)), Vec::<String>::new());
    assert_eq!(line(&impurities(&planted(shared, clock))), [1]);
}

#[test]
fn upward_paths_are_found_grouped_renamed_or_written_in_full() {
    for code in [
        "use crate::app::App;",
        "use crate::{protocol::Body, relay::RelayHandle};",
        "use crate::relay as other; fn f() { other::start(); }",
        "fn f() -> crate::http::Answer { g() }",
        "use super::super::relay::RelayHandle;",
        "fn f() { assert!(crate::relay::is_up()); }",
    ] {
        let found = wrong_arrows(&planted("src/signal/planted.rs", code));
        assert!(!found.is_empty(), "{code}");
    }
    let app = planted("src/app/planted.rs", "use crate::cli::DoctorArgs;");
    assert_eq!(line(&wrong_arrows(&app)), [1]);
    let downward = "use crate::{protocol::Body, protocol};";
    assert_eq!(
        wrong_arrows(&planted("src/signal/planted.rs", downward)),
        Vec::<String>::new()
    );
    let unknown = wrong_arrows(&planted("src/annex.rs", ""));
    assert_eq!(unknown, ["src/annex.rs: annex has no arrows in this test"]);
}

#[test]
fn circles_are_found_through_other_files_and_re_exports() {
    let file = |path: &str, code: &str| Source::new(path, format!("//! A part.\n{code}"));
    let through = [
        file("src/net/mod.rs", "mod a; mod b; mod c; pub use c::C;"),
        file("src/net/a.rs", "use super::b::B; pub struct A;"),
        file("src/net/b.rs", "pub struct B; fn f(c: crate::net::C) {}"),
        file("src/net/c.rs", "pub struct C(super::a::A);"),
    ];
    assert_eq!(
        circles(&through),
        ["src/net/a.rs → src/net/b.rs → src/net/c.rs"]
    );
    let straight = [
        file(
            "src/net/mod.rs",
            "mod a; mod b; pub use b::B; struct Whole(a::A);",
        ),
        file("src/net/a.rs", "pub struct A(super::Whole, super::B);"),
        file("src/net/b.rs", "pub struct B;"),
    ];
    assert_eq!(circles(&straight), Vec::<String>::new());
}
