//! The few words of the Redis protocol that the lab speaks to its own servers.

use std::{
    io::{self, BufRead, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// How long a server may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer of a Redis server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A text: a status or a bulk string. Bytes that are not UTF-8 are replaced.
    Text(String),
    /// A number.
    Int(i64),
    /// Nothing.
    Nil,
    /// Several answers.
    Array(Vec<Self>),
}

impl Reply {
    /// The number, if it is one.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The answers in it, if there are several.
    pub fn items(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The text after `name` in a list of names and values.
    pub fn field(&self, name: &str) -> Option<&str> {
        let pairs = self.items()?.chunks_exact(2);
        let value = pairs.into_iter().find(|pair| pair[0].text() == Some(name));
        value?[1].text()
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Sends one command after an optional `AUTH`, and returns the answer; an error answer is an error.
pub(super) fn command(socket: &Path, password: Option<&str>, args: &[&str]) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut request = Vec::new();
    if let Some(password) = password {
        encode(&mut request, &["AUTH", password]);
    }
    encode(&mut request, args);
    stream.write_all(&request)?;
    let mut reader = BufReader::new(stream);
    if password.is_some() {
        read(&mut reader)?;
    }
    read(&mut reader)
}

fn encode(out: &mut Vec<u8>, args: &[&str]) {
    out.extend(format!("*{}\r\n", args.len()).bytes());
    for arg in args {
        out.extend(format!("${}\r\n{arg}\r\n", arg.len()).bytes());
    }
}

fn read(reader: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| invalid(line))?;
    let number = || rest.parse::<i64>().map_err(|_| invalid(line));
    Ok(match kind {
        "+" => Reply::Text(rest.to_owned()),
        "-" => return Err(io::Error::other(rest.to_owned())),
        ":" => Reply::Int(number()?),
        "$" => match usize::try_from(number()?) {
            Ok(len) => {
                let mut text = vec![0; len + 2];
                reader.read_exact(&mut text)?;
                text.truncate(len);
                Reply::Text(String::from_utf8_lossy(&text).into_owned())
            }
            Err(_) => Reply::Nil,
        },
        "*" => {
            let items = 0..number()?;
            Reply::Array(items.map(|_| read(reader)).collect::<io::Result<_>>()?)
        }
        _ => return Err(invalid(line)),
    })
}

fn invalid(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("answer {line:?}"))
}
