//! Arguments, logging, signals, exit code; everything else is the library's.

use anyhow::Result;
use callbox::app::App;
use callbox::cli::{Cli, Command, check};
use callbox::config::{Config, Log, LogFormat, LogLevel};
use clap::Parser;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

/// EX_CONFIG of sysexits.h, as the operating contract has it.
const BAD_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.source)) {
        Command::Serve(source) => match Config::load(source.config.as_deref(), std::env::vars()) {
            Ok(config) => serve(config),
            Err(error) => {
                eprintln!("{error}");
                ExitCode::from(BAD_CONFIGURATION)
            }
        },
        Command::Check { source, json } => {
            let loaded = Config::load(source.config.as_deref(), std::env::vars());
            let (text, valid) = check(loaded, json);
            if valid || json {
                print(&text);
            } else {
                eprint!("{text}");
            }
            if valid {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(BAD_CONFIGURATION)
            }
        }
    }
}

fn serve(config: Config) -> ExitCode {
    start_log(&config.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(config)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("callbox: {error:#}");
            ExitCode::FAILURE
        }
    }
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

fn start_log(log: &Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}
