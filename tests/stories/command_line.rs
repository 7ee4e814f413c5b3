//! Exit codes and first words of the program.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

fn callbox(arguments: &[&str], env: &[(&str, &OsStr)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_callbox"))
        .args(arguments)
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn exit_codes_are_those_of_the_contract() {
    let check = callbox(&["check"], &[]);
    assert_eq!(check.status.code(), Some(0));
    assert!(text(&check.stdout).contains("the configuration is valid"));
    let bad = callbox(&["check"], &[("CALLBOX_TURN__USER_QOUTA", "1".as_ref())]);
    assert_eq!(bad.status.code(), Some(78));
    assert!(text(&bad.stderr).contains("did you mean turn.user_quota?"));
    let serve = callbox(&[], &[("CALLBOX_HTTP__LISTEN", "0.0.0.0:0".as_ref())]);
    assert_eq!(
        serve.status.code(),
        Some(78),
        "a reachable box says who may join"
    );
    let json = callbox(
        &["check", "--json"],
        &[("CALLBOX_TURN__TTL", "soon".as_ref())],
    );
    assert_eq!(json.status.code(), Some(78));
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(callbox(&["--help"], &[]).status.code(), Some(0));
    assert_eq!(callbox(&["dance"], &[]).status.code(), Some(1));
}

#[test]
fn an_environment_that_is_not_text_is_no_reason_to_fall() {
    let odd = OsStr::from_bytes(b"\xff\xfe");
    assert_eq!(
        callbox(&["check"], &[("SOMETHING", odd)]).status.code(),
        Some(0)
    );
    assert_eq!(
        callbox(&["check"], &[("CALLBOX_TURN__TTL", odd)])
            .status
            .code(),
        Some(78)
    );
}

#[test]
fn a_port_in_use_names_its_holder() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let refused = callbox(&["serve"], &[("CALLBOX_HTTP__LISTEN", address.as_ref())]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(
        said.contains(&format!("is taken by pid {}", std::process::id())),
        "{said}"
    );
    assert!(said.contains("or set http.listen"), "{said}");
}
