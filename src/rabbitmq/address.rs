//! Where a RabbitMQ is and who we are there: `amqp://user:password@host:port/vhost`, or
//! `rabbitmq-stream://..` for the stream protocol.
//!
//! Our own parser and not lapin's, whose type prints the password, takes `localhost` for every
//! IPv6 address, and reads `amqp://host/` as a virtual host without a name.

use std::fmt;
use std::str::FromStr;

/// How bytes travel to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear; port 5672 unless the address says otherwise.
    Amqp,
    /// Over TLS; port 5671 unless the address says otherwise.
    Amqps,
    /// The stream protocol in the clear; port 5552 unless the address says otherwise.
    Stream,
    /// The stream protocol over TLS; port 5551 unless the address says otherwise.
    StreamTls,
}

impl Scheme {
    const ALL: [Self; 4] = [Self::Amqp, Self::Amqps, Self::Stream, Self::StreamTls];

    /// Whether this is the stream protocol.
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Stream | Self::StreamTls)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Amqps => "amqps",
            Self::Stream => "rabbitmq-stream",
            Self::StreamTls => "rabbitmq-stream+tls",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Amqp => 5672,
            Self::Amqps => 5671,
            Self::Stream => 5552,
            Self::StreamTls => 5551,
        }
    }
}

/// The address of a RabbitMQ, with credentials. Neither `Debug` nor `Display` show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpAddress {
    /// Whether TLS is used.
    pub scheme: Scheme,
    /// Name or IP address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The virtual host, at most 255 bytes; `/` is the one that a new RabbitMQ has.
    pub vhost: String,
    /// At most 255 bytes.
    pub username: String,
    /// At most 255 bytes.
    pub password: String,
}

/// Why a text is not the address of a RabbitMQ. Never quotes the text, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// None of the schemes.
    #[error(
        "the address of a RabbitMQ starts with amqp://, amqps://, rabbitmq-stream:// or rabbitmq-stream+tls://"
    )]
    Scheme,
    /// No host between `//` (or `@`) and `:`, `/` or the end.
    #[error(
        "the address of a RabbitMQ names no host; write amqp://USER:PASSWORD@HOST:PORT/VHOST, with @, : and / in user and password as %40, %3A and %2F"
    )]
    Host,
    /// What follows the host's colon is not a number from 1 to 65535.
    #[error(
        "the port in the address of a RabbitMQ is not a number from 1 to 65535; @, : and / in user and password are written %40, %3A and %2F"
    )]
    Port,
    /// A `%` that is not followed by two hexadecimal digits, or bytes that are not UTF-8.
    #[error(
        "the {0} in the address of a RabbitMQ has a % without two hexadecimal digits, or is not UTF-8; write % as %25"
    )]
    Percent(&'static str),
    /// Longer than the protocol allows.
    #[error("the {0} in the address of a RabbitMQ is longer than 255 bytes")]
    Long(&'static str),
    /// More than one path segment.
    #[error("the virtual host in the address of a RabbitMQ contains a /; write it as %2f")]
    Vhost,
    /// `?` or `#`.
    #[error(
        "the address of a RabbitMQ has parameters after ? or #, which are not supported; write ? and # as %3F and %23"
    )]
    Parameters,
}

impl FromStr for AmqpAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = split_scheme(text)?;
        if rest.contains(['?', '#']) {
            return Err(AddressError::Parameters);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (userinfo, location) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (host, port) = split_port(location, scheme)?;
        let (username, password) = split_userinfo(userinfo)?;
        Ok(Self {
            scheme,
            host,
            port,
            vhost: decode_vhost(path)?,
            username,
            password,
        })
    }
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), AddressError> {
    Scheme::ALL
        .into_iter()
        .find_map(|scheme| {
            let rest = text.strip_prefix(scheme.name())?.strip_prefix("://")?;
            Some((scheme, rest))
        })
        .ok_or(AddressError::Scheme)
}

/// Splits `host`, `host:port`, `[ipv6]` or `[ipv6]:port`.
fn split_port(location: &str, scheme: Scheme) -> Result<(String, u16), AddressError> {
    let (host, port) = match location.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']').ok_or(AddressError::Host)?;
            let port = rest.strip_prefix(':');
            if port.is_none() && !rest.is_empty() {
                return Err(AddressError::Port);
            }
            (host, port)
        }
        None => match location.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (location, None),
        },
    };
    if host.is_empty() {
        return Err(AddressError::Host);
    }
    let port = match port {
        None => scheme.default_port(),
        Some(digits) => match digits.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(AddressError::Port),
        },
    };
    Ok((host.to_owned(), port))
}

/// The user and the password; each is `guest`, RabbitMQ's own default, if it is not there.
fn split_userinfo(userinfo: &str) -> Result<(String, String), AddressError> {
    let (username, password) = match userinfo.split_once(':') {
        Some((username, password)) => (username, Some(password)),
        None => (userinfo, None),
    };
    let username = if username.is_empty() {
        "guest"
    } else {
        username
    };
    Ok((
        decode("user", username)?,
        decode("password", password.unwrap_or("guest"))?,
    ))
}

fn decode_vhost(path: &str) -> Result<String, AddressError> {
    match path {
        "" => Ok("/".to_owned()),
        path if path.contains('/') => Err(AddressError::Vhost),
        path => decode("virtual host", path),
    }
}

/// Decodes `%xx`; `part` names what is decoded.
fn decode(part: &'static str, text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.split_off(..2).and_then(|digits| match digits {
            [high, low] => Some(16 * hexadecimal(*high)? + hexadecimal(*low)?),
            _ => None,
        });
        bytes.push(digits.ok_or(AddressError::Percent(part))?);
    }
    if bytes.len() > 255 {
        return Err(AddressError::Long(part));
    }
    String::from_utf8(bytes).map_err(|_| AddressError::Percent(part))
}

fn hexadecimal(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

/// `host:port`, as messages name it.
impl fmt::Display for AmqpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for AmqpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, user, vhost) = (self.scheme.name(), &self.username, &self.vhost);
        write!(f, "{scheme}://{user}:***@{self} (virtual host {vhost})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(
        scheme: Scheme,
        host: &str,
        port: u16,
        vhost: &str,
        username: &str,
        password: &str,
    ) -> AmqpAddress {
        let [host, vhost, username, password] =
            [host, vhost, username, password].map(str::to_owned);
        AmqpAddress {
            scheme,
            host,
            port,
            vhost,
            username,
            password,
        }
    }

    #[test]
    fn an_address_has_defaults_and_escapes() {
        let check = |text: &str, expected| assert_eq!(text.parse(), Ok(expected), "{text}");
        let (amqp, amqps) = (Scheme::Amqp, Scheme::Amqps);
        check("amqp://a", address(amqp, "a", 5672, "/", "guest", "guest"));
        check("amqp://a/", address(amqp, "a", 5672, "/", "guest", "guest"));
        check(
            "amqps://a/%2f",
            address(amqps, "a", 5671, "/", "guest", "guest"),
        );
        check("amqp://u:p@a:1/v", address(amqp, "a", 1, "v", "u", "p"));
        check(
            "rabbitmq-stream://a",
            address(Scheme::Stream, "a", 5552, "/", "guest", "guest"),
        );
        check(
            "rabbitmq-stream+tls://a",
            address(Scheme::StreamTls, "a", 5551, "/", "guest", "guest"),
        );
        check("amqp://u:@a", address(amqp, "a", 5672, "/", "u", ""));
        check("amqp://u@a", address(amqp, "a", 5672, "/", "u", "guest"));
        check("amqp://u:p@q@a", address(amqp, "a", 5672, "/", "u", "p@q"));
        check(
            "amqp://%40u:%3A%2F%25@a",
            address(amqp, "a", 5672, "/", "@u", ":/%"),
        );
        check(
            "amqp://[::1]",
            address(amqp, "::1", 5672, "/", "guest", "guest"),
        );
        check(
            "amqp://[::1]:7/%C3%A9",
            address(amqp, "::1", 7, "é", "guest", "guest"),
        );
    }

    #[test]
    fn what_is_not_an_address_is_explained() {
        let check = |text: &str, expected| {
            assert_eq!(text.parse::<AmqpAddress>(), Err(expected), "{text}");
        };
        check("http://a", AddressError::Scheme);
        check("localhost:5672", AddressError::Scheme);
        check("amqp://", AddressError::Host);
        check("amqp://:5672", AddressError::Host);
        check("amqp://u:p@/v", AddressError::Host);
        check("amqp://[::1", AddressError::Host);
        check("amqp://a:", AddressError::Port);
        check("amqp://a:0", AddressError::Port);
        check("amqp://a:65536", AddressError::Port);
        check("amqp://u:p/q@a", AddressError::Port);
        check("amqp://[::1]5672", AddressError::Port);
        check("amqp://u:p%4@a", AddressError::Percent("password"));
        check("amqp://u%zz:p@a", AddressError::Percent("user"));
        check("amqp://a/%ff", AddressError::Percent("virtual host"));
        check("amqp://a/v/w", AddressError::Vhost);
        check("amqp://a/v?heartbeat=1", AddressError::Parameters);
        let long = format!("amqp://a/{}", "v".repeat(256));
        check(&long, AddressError::Long("virtual host"));
    }

    #[test]
    fn a_password_is_never_shown() {
        let address: AmqpAddress = "amqps://me:secret@a:1/v".parse().unwrap();
        assert_eq!(address.to_string(), "a:1");
        assert_eq!(
            format!("{address:?}"),
            "amqps://me:***@a:1 (virtual host v)"
        );
        let error = "amqp://me:secret@".parse::<AmqpAddress>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
