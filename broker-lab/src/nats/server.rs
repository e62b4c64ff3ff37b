//! One standalone `nats-server`.

use std::{
    env, fmt, fs,
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    error::{Error, Result},
    port,
    process::Process,
    tls::Certificates,
};

const INSTALL: &str = "apt-get install nats-server";
const READY: &str = "Server is ready";
const RELOADED: &str = "Reloaded server configuration";
const IN_USE: &str = "address already in use";
const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Somebody else may take the port between our look at it and the server's.
const PORT_TRIES: usize = 20;
/// Who may connect while all connections are being cut: nobody.
const NOBODY: &str = "authorization { user: nobody, password: nobody }";

/// How a server is set up. By default: no JetStream, no credentials, no TLS.
#[derive(Debug, Default, Clone)]
pub struct NatsBuilder {
    jetstream: bool,
    tls: bool,
    authorization: String,
    /// What stands before the `@` in the URL.
    login: String,
    directives: Vec<String>,
}

impl NatsBuilder {
    /// Enables JetStream, with its files in the server's folder.
    #[must_use]
    pub fn jetstream(mut self) -> Self {
        self.jetstream = true;
        self
    }

    /// Requires a user name and a password.
    #[must_use]
    pub fn password(mut self, user: &str, password: &str) -> Self {
        self.login = format!("{user}:{password}@");
        self.authorization(&format!("user: {user:?}, password: {password:?}"))
    }

    /// Requires a token.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.login = format!("{token}@");
        self.authorization(&format!("token: {token:?}"))
    }

    /// Sets the `authorization` block, for example `users = [{nkey: UABC…, permissions: {…}}]`.
    #[must_use]
    pub fn authorization(mut self, block: &str) -> Self {
        self.authorization = format!("authorization {{ {block} }}");
        self
    }

    /// Speaks only TLS, after the greeting in plain text that NATS begins with; see [`Nats::certificates`].
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Adds a line to the configuration file, for example `config("max_payload: 200000")`.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.directives.push(line.into());
        self
    }

    /// Starts the server and waits until it accepts connections.
    ///
    /// # Errors
    /// If the program is missing or the server does not start; with the end of its log.
    pub fn start(self) -> Result<Nats> {
        let dir = tempfile::Builder::new().prefix("nats-lab-").tempdir();
        let dir = dir.map_err(|error| Error::io("temporary folder", &error))?;
        let certificates = self
            .tls
            .then(|| Certificates::generate(dir.path()))
            .transpose()?;
        let mut nats = Nats {
            port: 0,
            setup: self,
            certificates,
            process: Mutex::new(None),
            dir,
        };
        let mut last = Error::new("not tried");
        for _ in 0..PORT_TRIES {
            nats.port = port::free()?;
            match nats.restart() {
                Err(error) if error.to_string().contains(IN_USE) => last = error,
                done => return done.map(|()| nats),
            }
        }
        Err(last)
    }
}

/// A standalone NATS server on 127.0.0.1. Dropping it kills the server and removes its folder.
///
/// The program is `nats-server`, or what the environment variable `LAB_NATS_SERVER` names.
pub struct Nats {
    port: u16,
    setup: NatsBuilder,
    certificates: Option<Certificates>,
    process: Mutex<Option<Process>>,
    dir: TempDir,
}

impl Nats {
    /// Starts a server with the defaults of [`NatsBuilder`].
    ///
    /// # Errors
    /// As [`NatsBuilder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// Sets up a server.
    pub fn builder() -> NatsBuilder {
        NatsBuilder::default()
    }

    /// The port on 127.0.0.1; the same after every restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the server for the adapter, with its credentials: `nats`, `nats+tls`, `nats+jetstream` or
    /// `nats+jetstream+tls`.
    pub fn url(&self) -> String {
        self.url_as(&self.setup.login)
    }

    /// The URL with other credentials: empty, `user:password@` or `token@`.
    pub fn url_as(&self, login: &str) -> String {
        let log = if self.setup.jetstream {
            "+jetstream"
        } else {
            ""
        };
        let tls = if self.setup.tls { "+tls" } else { "" };
        format!("nats{log}{tls}://{login}127.0.0.1:{}", self.port)
    }

    /// The certificates of a server with TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// What the server wrote since its last start; empty while it is down.
    pub fn log(&self) -> String {
        self.lock().as_ref().map(Process::log).unwrap_or_default()
    }

    /// Starts the server again on the same port, after [`kill`](Self::kill) or [`stop`](Self::stop).
    ///
    /// # Errors
    /// If it is running, or does not start.
    pub fn restart(&self) -> Result<()> {
        let mut running = self.lock();
        if running.is_some() {
            return Err(Error::new("nats-server is already running"));
        }
        self.write_config(&self.setup.authorization)?;
        let program = env::var_os("LAB_NATS_SERVER").unwrap_or_else(|| "nats-server".into());
        let mut command = Command::new(program);
        command.arg("-c").arg(self.config()).current_dir(&self.dir);
        let mut process = Process::spawn(command, INSTALL, &self.dir.path().join("server.log"))?;
        process
            .wait_until(START_LIMIT, |log| log.contains(READY))
            .map_err(|error| Error::new(format!("nats-server: {error}")))?;
        *running = Some(process);
        Ok(())
    }

    /// Kills the server at once (SIGKILL).
    ///
    /// # Errors
    /// If it is not running.
    pub fn kill(&self) -> Result<()> {
        self.lock().take().map(Process::kill).ok_or_else(down)
    }

    /// Stops the server in order (SIGTERM).
    ///
    /// # Errors
    /// If it is not running, or does not stop and was killed.
    pub fn stop(&self) -> Result<()> {
        self.lock().take().ok_or_else(down)?.stop(STOP_GRACE)
    }

    /// Freezes the server (SIGSTOP): connections stay open, nothing is answered.
    ///
    /// # Errors
    /// If it is not running.
    pub fn freeze(&self) -> Result<()> {
        self.lock().as_ref().ok_or_else(down)?.freeze()
    }

    /// Lets a frozen server run on (SIGCONT).
    ///
    /// # Errors
    /// If it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.lock().as_ref().ok_or_else(down)?.thaw()
    }

    /// Begins lame duck mode: the server takes no new connections, tells its clients, and closes them one by one. It
    /// exits at the end, so start it again after [`kill`](Self::kill).
    ///
    /// # Errors
    /// If it is not running.
    pub fn lame_duck(&self) -> Result<()> {
        self.lock().as_ref().ok_or_else(down)?.signal(Signal::USR2)
    }

    /// Closes all client connections from the server's side; clients can come back when this returns.
    ///
    /// NATS has no command for it: the server is told to let nobody in, which ends those who are, and then to let them in
    /// again.
    ///
    /// # Errors
    /// If it is not running or cannot be told.
    pub fn cut(&self) -> Result<()> {
        let mut running = self.lock();
        let process = running.as_mut().ok_or_else(down)?;
        for authorization in [NOBODY, &self.setup.authorization] {
            self.write_config(authorization)?;
            let reloads = process.log().matches(RELOADED).count();
            process.signal(Signal::HUP)?;
            process.wait_until(START_LIMIT, |log| log.matches(RELOADED).count() > reloads)?;
        }
        Ok(())
    }

    /// Deletes the files of a server that is down: streams and all.
    ///
    /// # Errors
    /// If it is running, or a file cannot be deleted.
    pub fn wipe(&self) -> Result<()> {
        if self.lock().is_some() {
            return Err(Error::new("nats-server must be down to be wiped"));
        }
        match fs::remove_dir_all(self.store()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("wipe", &error))
            }
            _ => Ok(()),
        }
    }

    /// The folder of JetStream's files, to copy and to put back while the server is down.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("jetstream")
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("nats.conf")
    }

    fn write_config(&self, authorization: &str) -> Result<()> {
        let mut config = format!(
            "listen: \"127.0.0.1:{}\"\n{authorization}\n{}\n",
            self.port,
            self.setup.directives.join("\n")
        );
        if self.setup.jetstream {
            // The limits are promises of streams, and not what they take.
            config += &format!(
                "jetstream {{ store_dir: {:?}, max_memory_store: 64GB, max_file_store: 64GB }}\n",
                self.dir.path()
            );
        }
        if let Some(tls) = &self.certificates {
            config += &format!(
                "tls {{ cert_file: {:?}, key_file: {:?} }}\n",
                tls.cert, tls.key
            );
        }
        fs::write(self.config(), config).map_err(|error| Error::io("nats.conf", &error))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn down() -> Error {
    Error::new("nats-server is not running")
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats")
            .field("port", &self.port)
            .field("dir", &self.dir.path())
            .finish_non_exhaustive()
    }
}
