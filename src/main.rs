//! Arguments, logging, signals, exit code; everything else is the library's.

use anyhow::anyhow;
use callbox::app::handover::{self, Adopted, Origin, Way, answer};
use callbox::app::{self, App};
use callbox::cli::{self, Cli, Command, DoctorArgs, ServeArgs, Source, TraceArgs};
use callbox::config::{Config, ConfigError};
use callbox::log::{self, LogHandle};
use callbox::net::{Inherited, raise_descriptor_limit};
use callbox::{clock, service};
use futures_util::FutureExt as _;
use std::io::Write;
use std::num::NonZero;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// EX_CONFIG of sysexits.h, as the operating contract has it.
const BAD_CONFIGURATION: u8 = 78;

/// How long the end of the program waits for work on files and names that is under way.
const LAST_WORK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = match cli::arguments::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let serve_by_default = || {
        Command::Serve(ServeArgs {
            source: cli.source,
            check_handover: None,
        })
    };
    let outcome = match cli.command.unwrap_or_else(serve_by_default) {
        Command::Serve(ServeArgs {
            source,
            check_handover: Some(format),
        }) => check_handover(&source, format),
        Command::Serve(ServeArgs { source, .. }) => serve(&source),
        Command::Upgrade(args) => report(cli::upgrade(&args)),
        Command::Check { source, json } => check(&source, json),
        Command::Doctor(args) => doctor(&args),
        Command::User(args) => {
            load(args.source()).and_then(|config| report(print_note(cli::user(&config, &args))))
        }
        Command::Trace(args) => trace(&args),
        Command::Token(args) => load(&args.source)
            .and_then(|config| report(print_note(cli::token(&config, &args, clock::unix_now())))),
        Command::Install(args) => report(cli::install(&args)),
        Command::Behind(args) => Err(failure(&cli::lab("behind", &args))),
        Command::Natlab(args) => Err(failure(&cli::lab("natlab", &args))),
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
    let mut loaded = Config::load(source.config.as_deref(), callbox::config::environment());
    let mut refuses = false;
    if let Ok(config) = &mut loaded
        && let Some(look) = block_on(app::look_at_store(config))?
    {
        refuses = (look.findings.iter()).any(|found| found.finding == "redis-address");
        let said = |found: app::Finding| format!("{}: {}", found.cause, found.fix);
        config.warnings.extend(look.findings.into_iter().map(said));
    }
    let (text, valid) = cli::check(loaded, json);
    if valid || json {
        print(&text);
    } else {
        eprint!("{text}");
    }
    if valid && !refuses {
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

fn trace(args: &TraceArgs) -> Result<(), ExitCode> {
    let config = match &args.source.config {
        Some(_) => Some(load(&args.source)?),
        None => None,
    };
    block_on(cli::trace(args, config.as_ref(), print))?.map_err(|error| failure(&error))
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
    // On one core, threads would only take turns.
    let mut builder = match std::thread::available_parallelism() {
        Ok(NonZero::<usize>::MIN) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| failure(&error))?;
    let outcome = runtime.block_on(future);
    // A name that is still looked up holds nobody up.
    runtime.shutdown_timeout(LAST_WORK);
    Ok(outcome)
}

/// Answers a running box that asks whether this program can go on where it stops.
fn check_handover(source: &Source, format: u32) -> Result<(), ExitCode> {
    load(source).and_then(certified)?;
    let (newest, reads) = handover::check_handover(format);
    print(&format!("{newest}\n"));
    match reads {
        true => Ok(()),
        false => Err(ExitCode::FAILURE),
    }
}

fn serve(source: &Source) -> Result<(), ExitCode> {
    // What was left may be more than the limit that systemd sets.
    raise_descriptor_limit();
    // Before anything opens a descriptor.
    let adopted = handover::adopt();
    let config = load(source).and_then(certified)?;
    let log = log::start(&config.log);
    log_warnings(&config);
    let inherited = Inherited::from_env().map_err(|error| failure(&error))?;
    let adopted = match adopted {
        Some(Ok(adopted)) => Some(adopted),
        Some(Err(error)) => {
            tracing::error!("what the earlier process has left is not taken over: {error}");
            answer::say(answer::READY, format!("started anew: {error}"));
            None
        }
        None => None,
    };
    block_on(run(config, inherited, source, &log, adopted))?.map_err(|error| {
        let code = failure(&error);
        match error.is::<app::Misfit>() {
            true => ExitCode::from(BAD_CONFIGURATION),
            false => code,
        }
    })
}

async fn run(
    mut config: Config,
    mut inherited: Inherited,
    source: &Source,
    log: &LogHandle,
    mut adopted: Option<Adopted>,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    handover::release_signals();
    let origin = Origin::of_process(source.config.as_deref(), adopted.as_ref());
    let mut is_ending = false;
    loop {
        let inherited = std::mem::take(&mut inherited);
        let app = start(&config, inherited, adopted.take()).await?;
        service::ready(&app.status().await);
        let outcome = tokio::select! {
            next = run_until_shutdown(&app, &mut signals, source, log, &origin, is_ending) => Ok(next),
            () = service::watchdog(|| app.status()) => Ok(Next::End),
            () = app.failed() => Err(anyhow!(
                "a relay worker has ended by itself, so the box ends and can be started anew"
            )),
        };
        let (way, format) = match outcome {
            Ok(Next::HandOver(way, format)) => (way, format),
            outcome => {
                app.stop().await;
                return outcome.map(drop);
            }
        };
        is_ending = way != Way::Exec;
        if !is_ending {
            service::reloading();
        }
        let prepared = app.hand_over(format, &origin).await;
        let Err(failed) = prepared.pass_on(way, &origin, || signals.end_is_asked()) else {
            return Ok(());
        };
        let handover::Failed {
            reason: failure,
            left,
        } = *failed;
        tracing::error!("not handed over, this process goes on: {failure}");
        answer::say(answer::REFUSED, failure);
        adopted = left
            .inspect_err(|error| tracing::error!("it starts anew: {error}"))
            .ok();
        // It was good a moment ago; where it is not any more, the one that applied is.
        if let Ok(loaded) = Config::load(source.config.as_deref(), callbox::config::environment()) {
            config = loaded;
        }
    }
}

/// Starts the box on what an earlier process has left, or else anew.
async fn start(
    config: &Config,
    inherited: Inherited,
    adopted: Option<Adopted>,
) -> anyhow::Result<App> {
    if adopted.is_none() {
        let app = App::start_with(config.clone(), inherited, None).await?;
        print(&format!("{}\n", app.banner));
        return Ok(app);
    }
    match App::start_with(config.clone(), inherited, adopted).await {
        Ok(app) => {
            answer::say(answer::READY, app.status().await);
            Ok(app)
        }
        Err(error) => {
            tracing::error!("cannot go on where the earlier process has stopped: {error:#}");
            let app = App::start(config.clone()).await?;
            answer::say(answer::READY, format!("started anew: {error:#}"));
            Ok(app)
        }
    }
}

/// What comes after serving.
enum Next {
    End,
    /// A successor that reads this format, and how it gets everything.
    HandOver(Way, u32),
}

/// Reloads on SIGHUP; comes back once the box has drained, has been told twice to end, or has a
/// successor. A box that `is_ending` drains at once.
async fn run_until_shutdown(
    app: &App,
    signals: &mut Signals,
    source: &Source,
    log: &LogHandle,
    origin: &Origin,
    is_ending: bool,
) -> Next {
    if !is_ending && let Some(next) = serve_on(app, signals, source, log, origin).await {
        return next;
    }
    tracing::info!("draining; a second signal ends at once");
    let end = async {
        loop {
            match signals.next().await {
                SignalAction::Reload => {}
                SignalAction::HandOver => refuse_hand_over("the box drains".into()),
                SignalAction::End | SignalAction::Terminate => return,
            }
        }
    };
    tokio::select! {
        () = app.drain() => {}
        () = end => {}
        () = service::stopping(app.grace()) => {}
    }
    Next::End
}

/// Serves until the box is told to end, which is `None`, or has a successor.
async fn serve_on(
    app: &App,
    signals: &mut Signals,
    source: &Source,
    log: &LogHandle,
    origin: &Origin,
) -> Option<Next> {
    loop {
        tokio::select! {
            action = signals.next() => match action {
                SignalAction::Reload => reload(app, source, log).await,
                SignalAction::End => return None,
                SignalAction::Terminate => {
                    let restart = app.ask_restart(origin).await;
                    return restart.map(|(way, format)| Next::HandOver(way, format));
                }
                SignalAction::HandOver => match app.ask_successor(origin).await {
                    Ok(format) => return Some(Next::HandOver(Way::Exec, format)),
                    Err(reason) => refuse_hand_over(reason),
                },
            },
            () = app.drain_asked() => return None,
        }
    }
}

fn refuse_hand_over(reason: String) {
    tracing::error!("not handed over, this process goes on: {reason}");
    answer::say(answer::REFUSED, reason);
}

#[derive(PartialEq, Eq)]
enum SignalAction {
    End,
    /// The end too, unless systemd starts the service again.
    Terminate,
    Reload,
    HandOver,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    hand_over: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            hand_over: signal(SignalKind::user_defined2())?,
        })
    }

    /// The signal that has asked for the end meanwhile, by its number.
    fn end_is_asked(&mut self) -> Option<i32> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        let has_come = |signal: &mut Signal| signal.recv().now_or_never().is_some();
        has_come(&mut self.terminate)
            .then_some(terminate)
            .or_else(|| has_come(&mut self.interrupt).then_some(interrupt))
            .map(|kind| kind.as_raw_value())
    }

    async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Terminate,
            _ = self.interrupt.recv() => SignalAction::End,
            _ = self.hangup.recv() => SignalAction::Reload,
            _ = self.hand_over.recv() => SignalAction::HandOver,
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

/// A reader that went away does not end the box.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
