//! Arguments, logging, signals, exit code; everything else is the library's.

use anyhow::Result;
use callbox::app::{self, App};
use callbox::cli::{self, Cli, Command, Source};
use callbox::config::Config;
use callbox::{http, log};
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// EX_CONFIG of sysexits.h, as the operating contract has it.
const BAD_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command.unwrap_or(Command::Serve(cli.source)) {
        Command::Serve(source) => load(&source).and_then(serve),
        Command::Check { source, json } => check(&source, json),
        Command::Token(args) => load(&args.source)
            .and_then(|config| report(cli::token(&config, &args, http::unix_now()))),
        Command::Credentials(args) => load(&args.source).and_then(|config| {
            let issuer = block_on(app::ice_issuer(&config))?;
            report(cli::credentials(&config, issuer, &args, http::unix_now()))
        }),
    };
    outcome.err().unwrap_or(ExitCode::SUCCESS)
}

fn load(source: &Source) -> Result<Config, ExitCode> {
    Config::load(source.config.as_deref(), std::env::vars()).map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(BAD_CONFIGURATION)
    })
}

fn check(source: &Source, json: bool) -> Result<(), ExitCode> {
    let loaded = Config::load(source.config.as_deref(), std::env::vars());
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

fn report(outcome: Result<String, String>) -> Result<(), ExitCode> {
    match outcome {
        Ok(text) => print(&text),
        Err(error) => return Err(failure(&error)),
    }
    Ok(())
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

fn serve(config: Config) -> Result<(), ExitCode> {
    log::start(&config.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    block_on(run(config))?.map_err(|error| failure(&error))
}

async fn run(config: Config) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let app = App::start(config).await?;
    print(&format!("{}\n", app.banner));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining; a second signal ends at once");
    tokio::select! {
        () = app.drain() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    app.stop().await;
    Ok(())
}

/// A reader that went away is no reason to end the box.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
