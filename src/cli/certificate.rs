//! The certificate that a configuration names, looked at before anything is served.

use crate::clock::unix_now;
use crate::config::{CertificateSource, Config, ConfigError, Problem};
use crate::net::{CertStore, PemFiles};

/// Reads it, and adds a warning where clients would refuse it.
///
/// # Errors
/// Certificate and key cannot be served.
pub fn check_certificate(mut config: Config) -> Result<Config, ConfigError> {
    let Some(CertificateSource::Files { cert, key }) = &config.tls.certificates else {
        return Ok(config);
    };
    let store = CertStore::default();
    PemFiles::open(cert, key, &store).map_err(|reason| {
        Problem::new("tls.cert", cert.display(), reason)
            .fix("name a PEM chain, leaf first, and the key of that leaf")
    })?;
    if let Some(shown) = store.current() {
        let remarks = shown.remarks.iter();
        let remarks = remarks.map(|remark| format!("tls.cert = {}: {remark}", cert.display()));
        config.warnings.extend(remarks);
        let now = unix_now();
        let days = shown.days_left(now);
        if days < 0 {
            let warning = format!("tls.cert has expired {} days ago: clients refuse it", -days);
            config.warnings.push(warning);
        } else if shown.expires_soon(now) {
            config
                .warnings
                .push(format!("tls.cert expires in {days} days"));
        }
        if let Some(host) = config
            .public
            .host
            .as_ref()
            .filter(|host| !shown.names(host))
        {
            config.warnings.push(format!(
                "tls.cert does not name {host} (public.host): browsers refuse it, and no turns: \
                 URL is handed out"
            ));
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn inspected(dir: &Path, host: &str) -> Result<Config, String> {
        let toml = format!(
            "[public]\nhost = {host:?}\n[auth]\nmode = \"open\"\n\
             [tls]\nlisten = \"127.0.0.1:0\"\ncert = {:?}\nkey = {:?}",
            dir.join("cert"),
            dir.join("key")
        );
        let file = dir.join("callbox.toml");
        std::fs::write(&file, toml).unwrap();
        let config = Config::load(Some(&file), std::iter::empty()).unwrap();
        check_certificate(config).map_err(|error| error.to_string())
    }

    fn write(dir: &Path, not_after: i32) {
        let mut params = rcgen::CertificateParams::new(vec!["call.example".into()]).unwrap();
        params.not_after = rcgen::date_time_ymd(not_after, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(dir.join("cert"), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(dir.join("key"), key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_certificate_that_clients_would_refuse_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let warned = |host: &str, words: &str| {
            let config = inspected(dir.path(), host).unwrap();
            config
                .warnings
                .iter()
                .any(|warning| warning.contains(words))
        };
        write(dir.path(), 2100);
        assert!(!warned("call.example", "tls.cert"));
        assert!(warned("other.example", "does not name other.example"));
        write(dir.path(), 2021);
        assert!(warned("call.example", "has expired"));

        write(dir.path(), 2100);
        assert!(!warned("call.example", "byte order mark"));
        let pem = std::fs::read_to_string(dir.path().join("cert")).unwrap();
        std::fs::write(dir.path().join("cert"), format!("\u{feff}{pem}")).unwrap();
        assert!(warned("call.example", "byte order mark"));
    }

    #[test]
    fn a_pair_that_does_not_fit_is_an_error_of_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 2100);
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        std::fs::write(dir.path().join("key"), other).unwrap();
        let error = inspected(dir.path(), "call.example").unwrap_err();
        assert!(error.starts_with("tls.cert = "), "{error}");
        assert!(error.contains("do not fit"), "{error}");
    }

    #[test]
    fn a_file_of_another_form_is_named_by_check() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 2100);
        let pem = std::fs::read_to_string(dir.path().join("cert")).unwrap();
        let wide = format!("\u{feff}{pem}").encode_utf16().collect::<Vec<_>>();
        let wide: Vec<u8> = wide.into_iter().flat_map(u16::to_le_bytes).collect();
        std::fs::write(dir.path().join("cert"), wide).unwrap();
        let error = inspected(dir.path(), "call.example").unwrap_err();
        assert!(
            error.contains("UTF-16") && error.contains("UTF-8"),
            "{error}"
        );
        std::fs::write(dir.path().join("cert"), [0x30, 0x82, 1, 2, 0x30]).unwrap();
        let error = inspected(dir.path(), "call.example").unwrap_err();
        assert!(error.contains("openssl x509 -inform DER"), "{error}");
    }
}
