//! Arguments, logging, signals, exit code; everything else is the library's.

use anyhow::anyhow;
use callbox::app::{self, App};
use callbox::cli::{self, Cli, Command, DoctorArgs, Source};
use callbox::config::{Config, ConfigError};
use callbox::log::{self, LogHandle};
use callbox::net::{Inherited, raise_descriptor_limit};
use callbox::{clock, service};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// EX_CONFIG of sysexits.h, as the operating contract has it.
const BAD_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and are no failure.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let outcome = match cli.command.unwrap_or(Command::Serve(cli.source)) {
        Command::Serve(source) => serve(&source),
        Command::Check { source, json } => check(&source, json),
        Command::Doctor(args) => doctor(&args),
        Command::Token(args) => load(&args.source)
            .and_then(|config| report(print_note(cli::token(&config, &args, clock::unix_now())))),
        Command::Install(args) => report(cli::install(&args)),
        Command::Behind(args) => Err(failure(&cli::lab("behind", &args))),
        Command::Credentials(args) => load(&args.source).and_then(|config| {
            let issuer = block_on(app::ice_issuer(&config))?;
            report(cli::credentials(&config, issuer, &args, clock::unix_now()))
        }),
    };
    outcome.err().unwrap_or(ExitCode::SUCCESS)
}

fn load(source: &Source) -> Result<Config, ExitCode> {
    Config::load(source.config.as_deref(), callbox::config::environment()).map_err(refused)
}

fn certified(config: Config) -> Result<Config, ExitCode> {
    cli::check_certificate(config).map_err(refused)
}

fn refused(error: ConfigError) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(BAD_CONFIGURATION)
}

fn check(source: &Source, json: bool) -> Result<(), ExitCode> {
    let loaded = Config::load(source.config.as_deref(), callbox::config::environment());
    let (text, valid) = cli::check(loaded, json);
    if valid || json {
        print(&text);
    } else {
        eprint!("{text}");
    }
    if valid {
        Ok(())
    } else {
        Err(ExitCode::from(BAD_CONFIGURATION))
    }
}

fn doctor(args: &DoctorArgs) -> Result<(), ExitCode> {
    let config = match &args.source.config {
        Some(_) => Some(load(&args.source)?),
        None => None,
    };
    let examined = block_on(cli::doctor(args, config.as_ref(), clock::unix_now()))?;
    let (text, healthy) = examined.map_err(|error| failure(&error))?;
    print(&text);
    if healthy {
        Ok(())
    } else {
        Err(ExitCode::FAILURE)
    }
}

fn report(outcome: Result<String, String>) -> Result<(), ExitCode> {
    match outcome {
        Ok(text) => print(&text),
        Err(error) => return Err(failure(&error)),
    }
    Ok(())
}

/// Prints what goes beside the answer, so that standard output holds the answer alone.
fn print_note(outcome: Result<cli::Printed, String>) -> Result<String, String> {
    let printed = outcome?;
    if let Some(note) = printed.note {
        eprint!("{note}");
    }
    Ok(printed.out)
}

fn failure(error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("callbox: {error:#}");
    ExitCode::FAILURE
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T, ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failure(&error))?;
    Ok(runtime.block_on(future))
}

fn serve(source: &Source) -> Result<(), ExitCode> {
    let config = load(source).and_then(certified)?;
    let log = log::start(&config.log);
    log_warnings(&config);
    raise_descriptor_limit();
    let inherited = Inherited::from_env().map_err(|error| failure(&error))?;
    block_on(run(config, inherited, source, &log))?.map_err(|error| failure(&error))
}

async fn run(
    config: Config,
    inherited: Inherited,
    source: &Source,
    log: &LogHandle,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let app = App::start_with(config, inherited).await?;
    print(&format!("{}\n", app.banner));
    service::ready(&app.status().await);
    let outcome = tokio::select! {
        () = run_until_shutdown(&app, &mut signals, source, log) => Ok(()),
        () = service::watchdog(|| app.status()) => Ok(()),
        () = app.failed() => Err(anyhow!(
            "a relay worker has ended by itself, so the box ends and can be started anew"
        )),
    };
    app.stop().await;
    outcome
}

/// Reloads on SIGHUP; comes back once the box has drained, or has been told twice to end.
async fn run_until_shutdown(app: &App, signals: &mut Signals, source: &Source, log: &LogHandle) {
    loop {
        tokio::select! {
            action = signals.next() => match action {
                SignalAction::Reload => reload(app, source, log).await,
                SignalAction::End => break,
            },
            () = app.drain_asked() => break,
        }
    }
    tracing::info!("draining; a second signal ends at once");
    let end = async { while signals.next().await == SignalAction::Reload {} };
    tokio::select! {
        () = app.drain() => {}
        () = end => {}
        () = service::stopping(app.grace()) => {}
    }
}

#[derive(PartialEq, Eq)]
enum SignalAction {
    End,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::End,
            _ = self.interrupt.recv() => SignalAction::End,
            _ = self.hangup.recv() => SignalAction::Reload,
        }
    }
}

/// A bad configuration changes nothing.
async fn reload(app: &App, source: &Source, log: &LogHandle) {
    service::reloading();
    let loaded = Config::load(source.config.as_deref(), callbox::config::environment());
    match loaded.and_then(cli::check_certificate) {
        Ok(config) => {
            log_warnings(&config);
            log.set_level(config.log.level);
            let waiting = app.reload(config);
            if waiting.is_empty() {
                tracing::info!("reloaded");
            } else {
                tracing::warn!("reloaded; these wait for a restart: {}", waiting.join(", "));
            }
        }
        Err(error) => {
            for problem in &error.0 {
                tracing::error!("not reloaded, everything stays as it is: {problem}");
            }
        }
    }
    service::ready(&app.status().await);
}

fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

/// A reader that went away is no reason to end the box.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
