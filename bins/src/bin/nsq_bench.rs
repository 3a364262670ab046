//! The program `nsq_bench`: parse, run, print. Everything else is in [`nsq_bins::bench`].
//!
//! It ends with 0 after a complete run, 1 if the run failed, 2 if the command line asks for what cannot be.

use nsq_bins::bench::{Options, Request, help, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Request::Run(options)) => options,
        Ok(Request::Help) => {
            print!("{}", help());
            return ExitCode::SUCCESS;
        }
        Ok(Request::Version) => {
            println!("nsq_bench v{}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("nsq_bench: {error:#}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nsq_bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
