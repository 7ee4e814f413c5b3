//! `callbox install`: what the Debian package does, for who builds from source.
//!
//! It says each step, does it, and never overwrites a configuration or a secret.

use super::upgrade::{UNIT as SERVICE, UpgradeArgs, upgrade};
use clap::Args;
use rand::Rng;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};
use std::process::Command;

const UNIT: &str = include_str!("../../systemd/callbox.service");
const CONFIGURATION: &str = include_str!("../../debian/callbox.toml");
const SYSUSERS: &str = include_str!("../../systemd/sysusers.d/callbox.conf");
const TMPFILES: &str = include_str!("../../systemd/tmpfiles.d/callbox.conf");
const SYSUSERS_PATH: &str = "usr/local/lib/sysusers.d/callbox.conf";
const USER: &str = "callbox";

/// Where to install, and whether only to say so.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Says what would be done, and does nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Installs below this directory, as packagers do: no user is made, systemd is not told.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// One thing to do.
enum Step {
    User,
    Directory {
        path: PathBuf,
        mode: u32,
    },
    Program {
        path: PathBuf,
    },
    /// The operator's from the first moment on.
    Configuration {
        path: PathBuf,
    },
    /// Ours: an upgrade writes it again.
    Unit {
        path: PathBuf,
    },
    /// What systemd is to know of users and directories: ours as well.
    Rules {
        path: PathBuf,
        text: &'static str,
    },
    Secret {
        path: PathBuf,
        bytes: usize,
    },
    Tell,
    /// What runs goes on as this program.
    Upgrade,
}

/// Whether a step had something to do.
#[derive(PartialEq, Eq)]
enum Done {
    Yes,
    Kept,
}

/// Installs; returns the report.
///
/// # Errors
/// The first step that failed, with what to do.
pub fn install(args: &InstallArgs) -> Result<String, String> {
    let staged = args.root.is_some();
    let root = args.root.clone().unwrap_or_else(|| "/".into());
    let mut report = String::new();
    let mut is_running = false;
    for step in steps(&root, staged) {
        if args.dry_run {
            report += &format!("would  {step}\n");
            continue;
        }
        let outcome = step.perform(if staged { None } else { group_id() });
        match outcome.map_err(|error| failure(&step, &error))? {
            Done::Yes => {
                is_running |= matches!(step, Step::Upgrade);
                report += &format!("done   {step}\n");
            }
            Done::Kept => report += &format!("kept   {step}\n"),
        }
    }
    if is_running {
        return Ok(report);
    }
    report += "\nnext:  edit /etc/callbox/callbox.toml, then\n       \
               callbox check --config /etc/callbox/callbox.toml\n       \
               systemctl enable --now callbox\n";
    Ok(report)
}

fn steps(root: &Path, staged: bool) -> Vec<Step> {
    let at = |path: &str| root.join(path);
    let mut steps = vec![
        Step::Rules {
            path: at(SYSUSERS_PATH),
            text: SYSUSERS,
        },
        Step::Rules {
            path: at("usr/local/lib/tmpfiles.d/callbox.conf"),
            text: TMPFILES,
        },
        Step::Program {
            path: at("usr/local/bin/callbox"),
        },
        Step::Directory {
            path: at("etc/callbox"),
            mode: 0o755,
        },
        Step::Directory {
            path: at("etc/callbox/secrets"),
            mode: 0o750,
        },
        Step::Configuration {
            path: at("etc/callbox/callbox.toml"),
        },
        // RFC 7518 section 3.2: an HS256 key is as long as the hash.
        Step::Secret {
            path: at("etc/callbox/secrets/auth"),
            bytes: 32,
        },
        // As strong as the SHA-1 state it keys.
        Step::Secret {
            path: at("etc/callbox/secrets/turn"),
            bytes: 20,
        },
        Step::Unit {
            path: at("etc/systemd/system/callbox.service"),
        },
    ];
    if !staged {
        steps.insert(1, Step::User);
        steps.push(Step::Tell);
        steps.push(Step::Upgrade);
    }
    steps
}

impl Step {
    fn perform(&self, group: Option<u32>) -> io::Result<Done> {
        match self {
            Self::User => {
                if group.is_some() {
                    return Ok(Done::Kept);
                }
                let rules = Path::new("/").join(SYSUSERS_PATH);
                run(Command::new("systemd-sysusers").arg(rules))?;
            }
            Self::Directory { path, mode } => {
                fs::create_dir_all(path)?;
                if fs::symlink_metadata(path)?.is_symlink() {
                    return Err(io::Error::other("it is a symbolic link"));
                }
                own(path, *mode, group)?;
            }
            Self::Program { path } => {
                let own = std::env::current_exe()?;
                if fs::canonicalize(path).is_ok_and(|there| there == own) {
                    return Ok(Done::Kept);
                }
                // Renamed into place: a running program's file cannot be written to.
                let parent = path.parent().unwrap_or(path);
                fs::create_dir_all(parent)?;
                replace(path, 0o755, fs::File::open(&own)?)?;
            }
            Self::Configuration { path } => return create(path, CONFIGURATION, group),
            Self::Secret { path, bytes } => return create(path, &secret(*bytes), group),
            Self::Rules { path, text } => {
                fs::create_dir_all(path.parent().unwrap_or(path))?;
                replace(path, 0o644, text.as_bytes())?;
            }
            Self::Unit { path } => {
                fs::create_dir_all(path.parent().unwrap_or(path))?;
                let unit = UNIT.replace("/usr/bin/callbox", "/usr/local/bin/callbox");
                replace(path, 0o644, unit.as_bytes())?;
            }
            Self::Tell => {
                if !Path::new("/run/systemd/system").exists() {
                    return Ok(Done::Kept);
                }
                run(Command::new("systemctl").arg("daemon-reload"))?;
            }
            Self::Upgrade => {
                if !runs() {
                    return Ok(Done::Kept);
                }
                let args = UpgradeArgs {
                    pid: None,
                    wait: true,
                };
                if upgrade(&args).is_err() {
                    run(Command::new("systemctl").args(["restart", SERVICE]))?;
                }
            }
        }
        Ok(Done::Yes)
    }
}

/// Puts a file in the place of whatever stands at `path`, a symbolic link included. The name until
/// then is of nobody's choice, and the file is made: what somebody has put there is not written to.
fn replace(path: &Path, mode: u32, mut text: impl io::Read) -> io::Result<()> {
    let fresh = path.with_extension(secret(8));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    let written = io::copy(&mut text, &mut file)
        .and_then(|_| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&fresh, path));
    written.inspect_err(|_| {
        let _ = fs::remove_file(&fresh);
    })
}

/// Writes a file that is not there yet; nobody else may read it at any moment.
fn create(path: &Path, text: &str, group: Option<u32>) -> io::Result<Done> {
    let opened = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Done::Kept),
        Err(error) => return Err(error),
    };
    file.write_all(text.as_bytes())?;
    if group.is_some() {
        fchown(&file, None, group)?;
    }
    file.set_permissions(fs::Permissions::from_mode(0o640))?;
    Ok(Done::Yes)
}

/// Only what is closed to the world belongs to the box's group.
fn own(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if mode & 0o007 == 0 && group.is_some() {
        chown(path, None, group)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn secret(bytes: usize) -> String {
    let mut secret = vec![0; bytes];
    rand::rng().fill_bytes(&mut secret);
    secret.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether there is a service that runs.
fn runs() -> bool {
    let asked = Command::new("systemctl")
        .args(["--quiet", "is-active", SERVICE])
        .status();
    Path::new("/run/systemd/system").exists() && asked.is_ok_and(|status| status.success())
}

fn run(command: &mut Command) -> io::Result<()> {
    match command.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(status.to_string())),
    }
}

fn group_id() -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let ours = fields.next()? == USER;
        ours.then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

fn failure(step: &Step, error: &io::Error) -> String {
    let fix = match error.kind() {
        io::ErrorKind::PermissionDenied => ": run it as root",
        io::ErrorKind::NotFound => ": is the tool installed, and the directory there?",
        _ => "",
    };
    format!("cannot {step}: {error}{fix}")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => write!(f, "make the system user {USER}"),
            Self::Directory { path, mode } => {
                write!(f, "make the directory {} (mode {mode:o})", path.display())
            }
            Self::Program { path } => write!(f, "copy this program to {}", path.display()),
            Self::Configuration { path } => write!(f, "write {} (mode 640)", path.display()),
            Self::Unit { path } => write!(f, "write the unit {}", path.display()),
            Self::Rules { path, .. } => write!(f, "write {}", path.display()),
            Self::Secret { path, .. } => {
                write!(f, "make a fresh secret in {} (mode 640)", path.display())
            }
            Self::Tell => f.write_str("have systemd read its units again"),
            Self::Upgrade => f.write_str("have the running service go on as this program"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn below(root: &Path, dry_run: bool) -> InstallArgs {
        InstallArgs {
            dry_run,
            root: Some(root.into()),
        }
    }

    #[test]
    fn what_is_installed_runs_and_is_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        install(&below(root.path(), false)).unwrap();
        let mode = |path: &str| fs::metadata(at(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("etc/callbox/secrets/auth"), 0o640);
        assert_eq!(mode("etc/callbox/secrets"), 0o750);
        assert_eq!(mode("usr/local/bin/callbox"), 0o755);
        let secret = fs::read_to_string(at("etc/callbox/secrets/auth")).unwrap();
        assert_eq!(secret.len(), 64);
        let unit = fs::read_to_string(at("etc/systemd/system/callbox.service")).unwrap();
        assert!(unit.contains("ExecStart=/usr/local/bin/callbox serve"));

        let env = [
            ("CALLBOX_AUTH__SECRET_FILE", "etc/callbox/secrets/auth"),
            ("CALLBOX_TURN__SECRETS_FILE", "etc/callbox/secrets/turn"),
        ];
        let env = env.map(|(k, v)| (k.to_owned(), at(v).display().to_string()));
        let file = at("etc/callbox/callbox.toml");
        let config = Config::load(Some(&file), env.into_iter()).unwrap();
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        assert!(config.auth.signer.is_some() && !config.turn.made_secret);

        let report = install(&below(root.path(), false)).unwrap();
        assert!(report.contains("kept   make a fresh secret"), "{report}");
        let again = fs::read_to_string(at("etc/callbox/secrets/auth")).unwrap();
        assert_eq!(again, secret);
    }

    #[test]
    fn systemd_makes_the_user_and_the_folder_that_the_installation_makes() {
        let rules = |text: &str| -> Vec<Vec<String>> {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
            lines.map(words).collect()
        };
        let users = rules(SYSUSERS);
        assert_eq!((users.len(), &*users[0][0], &*users[0][1]), (1, "u", USER));
        let root = Path::new("/");
        let shut: Vec<_> = steps(root, true)
            .into_iter()
            .filter_map(|step| match step {
                Step::Directory { path, mode } if mode & 0o007 == 0 => Some(
                    [
                        "d",
                        &path.display().to_string(),
                        &format!("{mode:04o}"),
                        "root",
                        USER,
                        "-",
                    ]
                    .map(str::to_owned)
                    .to_vec(),
                ),
                _ => None,
            })
            .collect();
        assert_eq!(rules(TMPFILES), shut);
        assert!(UNIT.contains(&format!("User={USER}")));
    }

    #[test]
    fn the_unit_keeps_secrets_out_of_core_dumps_and_bounds_memory() {
        assert!(UNIT.lines().any(|line| line == "LimitCORE=0"));
        assert!(UNIT.lines().any(|line| line.starts_with("MemoryMax=")));
    }

    #[test]
    fn nothing_is_written_through_a_symbolic_link() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let victim = at("victim");
        fs::write(&victim, "precious").unwrap();
        for folder in ["usr/local/bin", "etc/systemd/system"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for planted in [
            "usr/local/bin/callbox",
            "usr/local/bin/callbox.new",
            "etc/systemd/system/callbox.service",
        ] {
            symlink(&victim, at(planted)).unwrap();
        }
        install(&below(root.path(), false)).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(
            fs::metadata(&victim).unwrap().permissions().mode() & 0o111,
            0
        );
        let program = fs::symlink_metadata(at("usr/local/bin/callbox")).unwrap();
        assert!(program.is_file() && program.permissions().mode() & 0o777 == 0o755);
        let left = fs::read_dir(at("usr/local/bin")).unwrap().count();
        assert_eq!(left, 2, "the planted link and the program");

        let elsewhere = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        symlink(elsewhere.path(), root.path().join("etc/callbox")).unwrap();
        let error = install(&below(root.path(), false)).unwrap_err();
        assert!(error.contains("symbolic link"), "{error}");
    }

    #[test]
    fn a_dry_run_touches_nothing() {
        let root = tempfile::tempdir().unwrap();
        let report = install(&below(root.path(), true)).unwrap();
        assert!(report.contains("would  write "), "{report}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_lines_that_open_the_box_are_a_valid_configuration() {
        let open: String = CONFIGURATION
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(key) if !key.is_empty() && !key.starts_with(' ') => key,
                _ => line,
            })
            .filter(|line| !line.starts_with("secret"))
            .fold(String::new(), |all, line| all + line + "\n");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(open.as_bytes()).unwrap();
        let env = [
            ("CALLBOX_AUTH__SECRET", "0123456789abcdef0123456789abcdef"),
            ("CALLBOX_TURN__SECRETS", "north"),
        ];
        let env = env.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let config = Config::load(Some(file.path()), env.into_iter()).unwrap();
        assert!(!config.loopback && config.public.host.is_some());
        assert!(config.tls.certificates.is_some());
    }
}
