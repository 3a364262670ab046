//! A whole local NSQ: an nsqlookupd, and an nsqd that registers with it, in one process. In come the options of `nsq`;
//! out come both daemons' logs on stderr and, on stdout, where they are and what to try. The rule: each daemon is
//! started and ended as in its own program; only the order is decided here. nsqd ends first, so that nsqlookupd hears
//! of it.

use crate::daemon;
use crate::data_path::DataPath;
use crate::log::LevelHandle;
use crate::nsq_flags::{NsqOptions, reachable};
use crate::nsqd_flags::NsqdOptions;
use crate::os_error::os_error;
use crate::serve::{self, Nsqd};
use crate::serve_nsqlookupd::{self, Nsqlookupd};
use std::fs;
use std::future::Future;
use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::Path;

/// Starts both, serves until `stopped`, and ends both.
///
/// # Errors
/// The text of the fatal line: an address that cannot be listened on, a data directory that cannot be used, or messages
/// that could not be written at the end.
pub async fn serve(options: NsqOptions, level: LevelHandle, stopped: impl Future<Output = ()>) -> Result<(), String> {
    let nsqlookupd = serve_nsqlookupd::start(options.nsqlookupd()).await?;
    let (nsqd, data_path) = start_nsqd(options.nsqd(nsqlookupd.tcp_address), level).await?;
    // Whoever closed stdout does not want to know.
    let _ = io::stdout().write_all(welcome(data_path.path(), &nsqd, &nsqlookupd).as_bytes());
    stopped.await;
    let stored = nsqd.stop().await;
    nsqlookupd.stop().await;
    stored
}

/// Starts nsqd in its directory, which is made if there is none.
async fn start_nsqd(options: NsqdOptions, level: LevelHandle) -> Result<(Nsqd, DataPath), String> {
    let instantiate = |why: String| daemon::instantiate("nsqd", &why);
    options.check().map_err(instantiate)?;
    let path = options.data_path.clone();
    let created = match fs::create_dir(&path) {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => return Err(instantiate(format!("failed to create {path}: {}", os_error(&error)))),
    };
    let data_path = DataPath::lock(&path).map_err(instantiate)?;
    match serve::start(options, data_path.path(), level).await {
        Ok(nsqd) => Ok((nsqd, data_path)),
        Err(text) => {
            if created {
                // A start that failed leaves nothing behind; what somebody has put there meanwhile stays.
                let _ = fs::remove_dir(&path);
            }
            Err(text)
        }
    }
}

/// What stdout shows once everything serves.
fn welcome(data_path: &Path, nsqd: &Nsqd, nsqlookupd: &Nsqlookupd) -> String {
    let places = Places {
        nsqd: (nsqd.tcp_address, nsqd.http_address),
        nsqlookupd: (nsqlookupd.tcp_address, nsqlookupd.http_address),
    };
    places.shown(&fs::canonicalize(data_path).unwrap_or_else(|_| data_path.to_owned()))
}

/// Where everything listens: TCP, and HTTP if it is served.
struct Places {
    nsqd: (SocketAddr, Option<SocketAddr>),
    nsqlookupd: (SocketAddr, Option<SocketAddr>),
}

impl Places {
    fn shown(&self, data_path: &Path) -> String {
        let line = |name: &str, (tcp, http): (SocketAddr, Option<SocketAddr>)| {
            let http = http.map_or_else(|| "no HTTP".to_owned(), |http| format!("http://{}", reachable(http)));
            format!("{name:<12} {:<21} {http}\n", reachable(tcp).to_string())
        };
        let mut text = line("nsqd", self.nsqd) + &line("nsqlookupd", self.nsqlookupd);
        text += &format!("{:<12} {}\n", "data", data_path.display());
        if let Some(http) = self.nsqd.1 {
            text +=
                &format!("{:<12} curl -d 'hello world' 'http://{}/pub?topic=greetings'\n", "publish", reachable(http));
        }
        if let Some(http) = self.nsqlookupd.1 {
            text += &format!("{:<12} with any NSQ client, lookupd_http_addresses = {}\n", "consume", reachable(http));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_served_is_not_shown() {
        let address = |port: u16| SocketAddr::from(([0, 0, 0, 0], port));
        let mut places = Places { nsqd: (address(1), Some(address(2))), nsqlookupd: (address(3), Some(address(4))) };
        assert_eq!(
            places.shown(Path::new("/data")),
            "nsqd         127.0.0.1:1           http://127.0.0.1:2\n\
             nsqlookupd   127.0.0.1:3           http://127.0.0.1:4\n\
             data         /data\n\
             publish      curl -d 'hello world' 'http://127.0.0.1:2/pub?topic=greetings'\n\
             consume      with any NSQ client, lookupd_http_addresses = 127.0.0.1:4\n"
        );
        (places.nsqd.1, places.nsqlookupd.1) = (None, None);
        assert_eq!(
            places.shown(Path::new("d")),
            "nsqd         127.0.0.1:1           no HTTP\nnsqlookupd   127.0.0.1:3           no HTTP\ndata         d\n"
        );
    }
}
