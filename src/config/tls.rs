//! `tls.*`: where TLS is served, and where its certificates come from.

use super::collect::Check;
use super::raw::Raw;
use std::net::IpAddr;
use std::path::PathBuf;

/// The TLS port.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Where HTTPS, WSS and TURN over TLS are served; empty: nowhere.
    pub listen: Vec<std::net::SocketAddr>,
    /// Whether connections from `http.trusted_proxies` begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Present where `listen` is not empty.
    pub certificates: Option<CertificateSource>,
}

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM files that somebody else renews.
    Files {
        /// The chain, leaf first.
        cert: PathBuf,
        /// The private key of the leaf.
        key: PathBuf,
    },
    /// An ACME authority.
    Acme(Acme),
}

/// How certificates are ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Whom the authority may write to.
    pub email: Option<String>,
    /// URL of the authority's directory.
    pub directory: String,
    /// Directory for the account and the certificates.
    pub cache: PathBuf,
    /// DNS names, at least one.
    pub domains: Vec<String>,
}

impl Check<'_> {
    pub(super) fn tls(&mut self, raw: &Raw) -> Tls {
        let tls = &raw.tls;
        let certificates = self.certificate_source(raw);
        if tls.listen.is_empty() {
            if certificates.is_some() {
                self.warnings.push(
                    "tls has certificates but no tls.listen: nothing is served over TLS".into(),
                );
            }
        } else if certificates.is_none() && self.problems.iter().all(|p| !p.key.starts_with("tls."))
        {
            self.problem("tls.listen", "", "is set, and no certificate is")
                .set_fix(
                    "set tls.cert and tls.key, or tls.acme.email to order certificates by ACME",
                );
        }
        if tls.proxy_protocol && raw.http.trusted_proxies.is_empty() {
            self.problem(
                "tls.proxy_protocol",
                "true",
                "is believed from http.trusted_proxies only, and there are none",
            )
            .set_fix("list the proxy's address in http.trusted_proxies, e.g. [\"127.0.0.1/32\"]");
        }
        Tls {
            listen: tls.listen.clone(),
            proxy_protocol: tls.proxy_protocol,
            certificates: certificates.filter(|_| !tls.listen.is_empty()),
        }
    }

    fn certificate_source(&mut self, raw: &Raw) -> Option<CertificateSource> {
        let tls = &raw.tls;
        let wants_acme = tls.acme.email.is_some() || !tls.acme.domains.is_empty();
        match (&tls.cert, &tls.key) {
            (Some(_), _) | (_, Some(_)) if wants_acme => {
                self.problem("tls.acme", "", "is set, and so is tls.cert or tls.key")
                    .set_fix("keep one of the two");
                None
            }
            (Some(cert), Some(key)) => {
                // What is in them is named by who reads them.
                let can_read = self.can_read("tls.cert", cert) & self.can_read("tls.key", key);
                if !can_read {
                    return None;
                }
                self.judge_file("tls.key", key);
                Some(CertificateSource::Files {
                    cert: cert.clone(),
                    key: key.clone(),
                })
            }
            (Some(_), None) => {
                self.problem("tls.key", "", "is not set, and tls.cert is")
                    .set_fix("name the PEM file with the certificate's private key");
                None
            }
            (None, Some(_)) => {
                self.problem("tls.cert", "", "is not set, and tls.key is")
                    .set_fix("name the PEM file with the certificate chain, leaf first");
                None
            }
            (None, None) if wants_acme => self.acme(raw).map(CertificateSource::Acme),
            (None, None) => None,
        }
    }

    fn acme(&mut self, raw: &Raw) -> Option<Acme> {
        let acme = &raw.tls.acme;
        if !acme.directory.starts_with("https://") {
            let shown = format!("{:?}", acme.directory);
            self.problem("tls.acme.directory", shown, "is not a valid https:// URL")
                .set_fix(
                    "write the authority's directory, e.g. \
                     \"https://acme-staging-v02.api.letsencrypt.org/directory\" to try things out",
                );
        }
        let domains: Vec<String> = if acme.domains.is_empty() {
            raw.public.host.iter().cloned().collect()
        } else {
            acme.domains.clone()
        };
        if domains.is_empty() {
            self.problem(
                "tls.acme.domains",
                "[]",
                "names nothing, and public.host is not set",
            )
            .set_fix("set public.host to the box's name, e.g. \"call.example.org\"");
            return None;
        }
        for domain in &domains {
            let reason = if domain.parse::<IpAddr>().is_ok() {
                "is an address; certificates are ordered for names"
            } else if domain.starts_with("*.") {
                "is a wildcard, which TLS-ALPN-01 cannot prove"
            } else {
                continue;
            };
            self.problem("tls.acme.domains", format!("{domain:?}"), reason)
                .set_fix("write a DNS name that leads to this box, e.g. \"call.example.org\"");
        }
        Some(Acme {
            email: acme.email.clone(),
            directory: acme.directory.clone(),
            cache: acme.cache.clone(),
            domains,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::io::Write;

    fn load(toml: &str) -> Result<Config, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(toml.as_bytes()).unwrap();
        Config::load(Some(file.path()), std::iter::empty()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_tls_port_needs_one_source_of_certificates() {
        let error =
            |rest: &str| load(&format!("[tls]\nlisten = [\"127.0.0.1:0\"]\n{rest}")).unwrap_err();
        let none = error("");
        assert!(
            none.starts_with("tls.listen (") && none.contains("tls.acme.email"),
            "{none}"
        );
        let half = error("cert = \"/etc/hostname\"");
        assert!(
            half.starts_with("tls.key") && half.lines().count() == 1,
            "{half}"
        );
        let other = error("key = \"/etc/hostname\"");
        assert!(other.starts_with("tls.cert"), "{other}");
        let both = error("cert = \"/etc/hostname\"\nacme.email = \"a@example.org\"");
        assert!(both.contains("keep one of the two"), "{both}");
        let absent = error("cert = \"/nonexistent\"\nkey = \"/nonexistent\"");
        assert!(absent.contains("tls.cert = /nonexistent"), "{absent}");
        let proxy = error("proxy_protocol = true\nacme.domains = [\"a.example\"]");
        assert!(proxy.starts_with("tls.proxy_protocol"), "{proxy}");
    }

    #[test]
    fn acme_orders_for_the_public_host_unless_told_otherwise() {
        let tls = "[auth]\nmode = \"open\"\n[tls]\nlisten = [\"127.0.0.1:0\"]\n";
        let host = "[public]\nhost = \"call.example.org\"\n";
        let domains = |toml: String| -> Result<Vec<String>, String> {
            match load(&toml)?.tls.certificates {
                Some(CertificateSource::Acme(acme)) => Ok(acme.domains),
                other => panic!("{other:?}"),
            }
        };
        let email = format!("{tls}acme.email = \"a@example.org\"");
        assert_eq!(
            domains(format!("{host}{email}")).unwrap(),
            ["call.example.org"]
        );
        assert_eq!(
            domains(format!("{host}{tls}acme.domains = [\"a.example\"]")).unwrap(),
            ["a.example"]
        );
        assert!(domains(email).unwrap_err().contains("public.host"));
        for bad in ["*.example.org", "192.0.2.1"] {
            let error = domains(format!("{tls}acme.domains = [\"{bad}\"]")).unwrap_err();
            assert!(error.contains("tls.acme.domains"), "{error}");
        }
        let plain =
            format!("{tls}acme = {{ domains = [\"a.example\"], directory = \"http://x\" }}");
        assert!(domains(plain).unwrap_err().contains("tls.acme.directory"));
    }

    #[test]
    fn a_box_may_serve_tls_alone() {
        let toml = "[http]\nlisten = []\n[tls]\nlisten = [\"127.0.0.1:0\"]\n\
                    acme.domains = [\"a.example\"]";
        let config = load(toml).unwrap();
        assert!(config.loopback && config.http.listen.is_empty());
    }
}
