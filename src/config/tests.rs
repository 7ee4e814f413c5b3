use super::*;
use std::io::Write;

fn load(toml: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::load(Some(file.path()), env).map_err(|e| {
        e.to_string()
            .replace(&file.path().display().to_string(), "FILE")
    })
}

#[test]
fn nothing_written_is_a_loopback_box_in_open_mode() {
    let config = Config::load(None, std::iter::empty()).unwrap();
    assert!(config.loopback);
    assert_eq!(config.auth.mode, Mode::Open);
    assert!(config.turn.made_secret);
    assert!(
        config
            .turn
            .udp
            .addresses
            .iter()
            .all(|a| a.ip().is_loopback() && [3478, 3479].contains(&a.port()))
    );
}

#[test]
fn the_commented_file_shows_every_key_at_its_default() {
    let text = include_str!("../../config/callbox.toml");
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("#") {
            Some(rest) if !rest.starts_with(' ') => rest,
            _ => line,
        })
        .fold(String::new(), |all, line| all + line + "\n");
    let mut shown: Vec<String> = vec![];
    keys_of("", &uncommented.parse().unwrap(), &mut shown);
    let known: Vec<String> = source::known_keys().into_keys().collect();
    shown.sort();
    assert_eq!(shown, known);

    // Keys without a default are shown by an example, which is not loaded.
    let defaults: String = uncommented
        .lines()
        .filter(|line| !line.contains("# example"))
        .fold(String::new(), |all, line| all + line + "\n");
    let from_file = load(&defaults, &[]).unwrap();
    let built_in = Config::load(None, std::iter::empty()).unwrap();
    assert_eq!(from_file.to_toml(), built_in.to_toml());
}

fn keys_of(prefix: &str, table: &toml::Table, out: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) if !inner.is_empty() => {
                keys_of(&format!("{prefix}{key}."), inner, out)
            }
            _ => out.push(format!("{prefix}{key}")),
        }
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let config = load(
        "[turn]\nuser_quota = 1\nrealm = \"file\"\n[http]\npages = true",
        &[
            ("CALLBOX_TURN__USER_QUOTA", "10"),
            ("CALLBOX_HTTP__PAGES", "false"),
            ("CALLBOX_HTTP__LISTEN", "[\"127.0.0.1:0\", \"[::1]:0\"]"),
            ("CALLBOX_TURN__ALLOWED_PEERS", "10.0.0.0/8, fd00::/8"),
            ("CALLBOX_AUTH__SECRET", "12345"),
            ("CALLBOX_AUTH__MODE", "jwt"),
            ("CALLBOX_PORT", "tcp://10.0.0.1:80"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(config.turn.user_quota, 10);
    assert_eq!(config.turn.realm, "file");
    assert!(!config.http.pages);
    assert_eq!(config.http.listen.len(), 2);
    assert_eq!(config.turn.allowed_peers.len(), 2);
    assert!(
        config.auth.verifier.is_some(),
        "a secret of digits is text all the same"
    );
}

#[test]
fn each_error_names_key_value_reason_and_fix() {
    let error = |toml| load(toml, &[]).unwrap_err();
    assert_eq!(
        error("[turn]\nuser_qouta = 3"),
        "turn.user_qouta = a value (FILE): is not a key of callbox; did you mean turn.user_quota?"
    );
    assert_eq!(
        load("", &[("CALLBOX_AUTH__SECRTE", "hush")]).unwrap_err(),
        "auth.secrte = a string (CALLBOX_AUTH__SECRTE): is not a key of callbox; \
         did you mean auth.secret?"
    );
    let cidr = error("[turn]\ndenied_peers = [\"10.0.0.0/33\"]");
    assert!(
        cidr.starts_with("turn.denied_peers (FILE): \"10.0.0.0/33\" "),
        "{cidr}"
    );
    assert_eq!(
        error("[signal]\nheartbeat = \"soon\""),
        "signal.heartbeat (FILE): \"soon\" is not a duration; write e.g. \"30s\", \"10m\" or \
         \"1h\""
    );
    let line = error("[turn\n");
    assert!(
        line.contains("FILE: is not valid TOML") && line.contains("line 1"),
        "{line}"
    );
    let missing = error("[auth]\nmode = \"jwt\"\nsecret_file = \"/nonexistent/secret\"");
    assert!(missing.contains("auth.secret_file = /nonexistent/secret (FILE): No such file"));
    let network = error("[net]\ndenied_clients = [\"203.0.113\"]");
    assert!(network.contains("e.g. \"203.0.113.0/24\""), "{network}");
    let word = error("[turn.budget]\nthen = \"stop\"");
    assert!(word.contains("\"stop\" is not one of its words"), "{word}");
    let kind = error("[turn]\nuser_quota = \"many\"");
    assert!(kind.starts_with("turn.user_quota (FILE): "), "{kind}");
    let unreadable = Config::load(Some(Path::new("/nonexistent.toml")), std::iter::empty());
    assert!(
        unreadable
            .unwrap_err()
            .to_string()
            .contains("--config = /nonexistent.toml")
    );
}

#[test]
fn every_problem_is_told_at_once() {
    let error = load(
        "[turn]\nuser_quota = 0\nttl = \"1ms\"\n[http]\nlisten = []",
        &[],
    )
    .unwrap_err();
    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn a_reachable_box_has_to_say_who_may_join() {
    for toml in [
        "[http]\nlisten = [\"0.0.0.0:8080\"]",
        "[tls]\nlisten = [\"0.0.0.0:443\"]\nacme.domains = [\"a.example\"]",
        "[public]\nhost = \"call.example.org\"",
        "[public]\naddress = \"192.0.2.7\"",
    ] {
        let error = load(toml, &[]).unwrap_err();
        assert!(
            error.contains("auth.mode") && error.contains("mode = \"open\""),
            "{error}"
        );
        let open = load(&format!("{toml}\n[auth]\nmode = \"open\""), &[]).unwrap();
        assert!(!open.loopback);
        assert!(
            open.turn
                .udp
                .addresses
                .iter()
                .all(|a| a.ip().is_unspecified())
        );
    }
}

#[test]
fn turn_listens_on_tcp_beside_udp_with_a_worker_a_core() {
    let config = Config::load(None, std::iter::empty()).unwrap();
    // And on a second port over UDP, from which clients tell their NAT.
    let ports = |listen: &Listen| {
        listen
            .addresses
            .iter()
            .map(SocketAddr::port)
            .collect::<Vec<_>>()
    };
    assert_eq!(ports(&config.turn.udp), [3478, 3478, 3479, 3479]);
    assert_eq!(ports(&config.turn.tcp), [3478, 3478]);
    let written = load("[turn]\nudp = [\"127.0.0.1:3478\"]", &[]).unwrap();
    assert_eq!(ports(&written.turn.udp), [3478]);
    assert!(config.turn.workers >= 1);
    assert_eq!(load("[turn]\nworkers = 3", &[]).unwrap().turn.workers, 3);
    assert!(
        load("[turn]\nworkers = 0", &[])
            .unwrap_err()
            .contains("turn.workers = 0")
    );
    let error = load("[turn]\ncoalesce = \"20ms\"", &[]).unwrap_err();
    assert!(error.contains("turn.coalesce = 20ms"), "{error}");
    let never = load("[turn]\ncoalesce = \"0s\"", &[]).unwrap();
    assert_eq!(never.turn.coalesce, std::time::Duration::ZERO);
    let outside = load("[turn]\ntcp = [\"0.0.0.0:3478\"]", &[]).unwrap();
    assert!(outside.warnings[0].starts_with("turn.tcp listens on 0.0.0.0:3478"));
}

#[test]
fn jwt_mode_needs_a_key() {
    let error = load("[auth]\nmode = \"jwt\"", &[]).unwrap_err();
    assert!(
        error.contains("auth.secret") && error.contains("openssl"),
        "{error}"
    );
    assert!(load("[auth]\nmode = \"jwt\"\nsecret = \"s\"", &[]).is_ok());
}

#[test]
fn the_effective_configuration_hides_every_secret() {
    let config = load(
        "[auth]\nmode = \"jwt\"\nsecret = \"hush1\"\n[turn]\nsecrets = [\"hush2\", \"hush3\"]",
        &[],
    )
    .unwrap();
    for text in [
        config.to_toml(),
        config.to_json().to_string(),
        format!("{config:?}"),
    ] {
        assert!(!text.contains("hush"), "{text}");
    }
    assert!(config.to_toml().contains("(redacted)"));
}

#[test]
fn secrets_may_live_in_files_one_a_line() {
    let mut secrets = tempfile::NamedTempFile::new().unwrap();
    secrets.write_all(b"new\n\nold\n").unwrap();
    let path = secrets.path().display();
    let config = load(&format!("[turn]\nsecrets_file = \"{path}\""), &[]).unwrap();
    assert_eq!(config.turn.secrets.passwords("1:a").count(), 2);
    assert!(!config.turn.made_secret);
    let both = load(
        &format!("[turn]\nsecrets = [\"x\"]\nsecrets_file = \"{path}\""),
        &[],
    );
    assert!(both.unwrap_err().contains("keep one of the two"));
}

#[test]
fn a_line_that_is_not_toml_is_named_and_not_shown() {
    let error = load(
        "[turn]\nttl = \"1h\"\n[auth]\nsecret = hunter2-very-secret\n",
        &[],
    )
    .unwrap_err();
    assert!(error.contains("line 4, column"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn spans_that_would_overflow_are_refused() {
    for key in ["[signal]\nresume_window", "[turn]\nttl", "[drain]\ngrace"] {
        let error = load(&format!("{key} = \"500000000000years\""), &[]).unwrap_err();
        assert!(error.contains("years"), "{error}");
    }
}

#[test]
fn an_unknown_table_is_refused_even_if_empty() {
    let error = load("[trun]\n", &[]).unwrap_err();
    assert!(error.starts_with("trun = a value: is not a key"), "{error}");
    assert!(load("[turn]\n[tls.acme]\n", &[]).is_ok());
}

#[test]
fn a_file_that_is_no_text_is_named_as_what_it_is() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let utf16 = "[auth]\nmode = \"open\"\n".encode_utf16();
    let with_mark: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain(utf16.flat_map(u16::to_le_bytes))
        .collect();
    for (bytes, what) in [
        (with_mark.as_slice(), "is UTF-16"),
        (b"[\0a\0\xe9\0", "is UTF-16"),
        (b"# caf\xe9", "is not UTF-8"),
    ] {
        std::fs::write(file.path(), bytes).unwrap();
        let error = Config::load(Some(file.path()), std::iter::empty()).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(what) && error.contains("save it as UTF-8"),
            "{error}"
        );
    }
}

#[test]
fn an_origin_that_no_browser_sends_is_refused_with_its_right_spelling() {
    let error = load(
        "[http]\nallowed_origins = [\"https://Call.example:443/app\"]",
        &[],
    )
    .unwrap_err();
    assert!(error.contains("http.allowed_origins"), "{error}");
    assert!(error.contains("write \"https://call.example\""), "{error}");
}
