//! Arguments, prompts, progress, the daemon's life, and the composition root.
//!
//! Invariants: exit codes are those of `exit::Code`; a password is never an argument; the daemon forks before it
//! has threads and never touches its own mount; no name goes to the log.

pub mod args;
mod commands;
pub mod control;
pub mod daemon;
pub mod drive;
pub mod exit;
pub mod folders;
mod gateway;
mod holders;
pub mod links;
pub mod logging;
pub mod mount;
pub mod mount_options;
mod open_files;
pub mod password;
pub mod serve;
mod status;

use args::{Cli, Command};

/// The whole program.
pub fn main() -> ! {
    let cli = match args::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        // Prints help and version too, with status 0.
        Err(args::ParseError(error)) => error.exit(),
    };
    match dispatch(cli) {
        Ok(()) => exit::leave(0),
        Err(failure) => {
            eprintln!("hushfs: {failure}");
            exit::leave(failure.code as i32)
        }
    }
}

fn dispatch(cli: Cli) -> exit::Outcome {
    match cli.command {
        Command::Init(args) => commands::init(args),
        Command::Mount(args) => mount::mount(args),
        Command::Umount(args) => commands::umount(&args),
        Command::Status(args) => commands::status(&args),
        Command::Flush(args) => commands::flush(&args),
        Command::Key(command) => commands::key(command),
        Command::Recover(args) => commands::recover(args),
        Command::Share(command) => links::share(command),
        Command::Get(args) => links::get(&args),
        Command::Import(args) => links::import(&args),
        Command::Gateway(args) => gateway::gateway(args),
    }
}
