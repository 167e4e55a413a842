//! What whoever connects says first, and what it is answered: before any frame.
//!
//! ```text
//!   0  8  "SYMPHONY"                answer   0  2  "SY"
//!   8  1  version, 1                         2  1  status, 0 is welcome
//!   9  1  role: 1 client                     3  1  0
//!  10  6  zeros
//!  16 32  token
//! ```

/// Bytes of a preamble.
pub const PREAMBLE_BYTES: usize = 48;

/// Bytes of an answer.
pub const ANSWER_BYTES: usize = 4;

/// Bytes of a token.
pub const TOKEN_BYTES: usize = 32;

const MAGIC: &[u8; 8] = b"SYMPHONY";
const ANSWER_MAGIC: &[u8; 2] = b"SY";
const VERSION: u8 = 1;

/// What whoever connects wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It calls: its `Hello` follows.
    Client,
}

impl Role {
    const fn to_wire(self) -> u8 {
        match self {
            Self::Client => 1,
        }
    }

    const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Client),
            _ => None,
        }
    }
}

/// A random number that only those know who may read the folder.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub(super) [u8; TOKEN_BYTES]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Compares in a time that does not tell how much of it is right.
    fn is(&self, other: &[u8]) -> bool {
        let differs = self.0.iter().zip(other).fold(0, |differs, (own, other)| differs | (own ^ other));
        other.len() == TOKEN_BYTES && differs == 0
    }
}

/// What a preamble is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The handshake may begin.
    Welcome,
    /// It is no preamble, or one of a version that is not spoken here.
    Version,
    /// The token is another one: most likely that of a conductor that has ended.
    Token,
    /// A role that is not to be had here.
    Role,
    /// As many are connected as may be. Try again later.
    Full,
}

impl Status {
    const ALL: [Self; 5] = [Self::Welcome, Self::Version, Self::Token, Self::Role, Self::Full];

    const fn to_wire(self) -> u8 {
        match self {
            Self::Welcome => 0,
            Self::Version => 1,
            Self::Token => 2,
            Self::Role => 3,
            Self::Full => 4,
        }
    }
}

/// The preamble of `role`.
pub(super) fn encode(role: Role, token: &Token) -> [u8; PREAMBLE_BYTES] {
    let mut preamble = [0; PREAMBLE_BYTES];
    preamble[..8].copy_from_slice(MAGIC);
    (preamble[8], preamble[9]) = (VERSION, role.to_wire());
    preamble[16..].copy_from_slice(&token.0);
    preamble
}

/// Who came, if it may come in.
///
/// # Errors
///
/// What to answer it.
pub(super) fn decode(preamble: &[u8; PREAMBLE_BYTES], token: &Token) -> Result<Role, Status> {
    let (head, own) = preamble.split_at(16);
    if !head.starts_with(MAGIC) || head[8] != VERSION || head[10..] != [0; 6] {
        return Err(Status::Version);
    }
    if !token.is(own) {
        return Err(Status::Token);
    }
    Role::from_wire(head[9]).ok_or(Status::Role)
}

pub(super) fn encode_answer(status: Status) -> [u8; ANSWER_BYTES] {
    [ANSWER_MAGIC[0], ANSWER_MAGIC[1], status.to_wire(), 0]
}

/// The status of an answer; `None` if it is none.
pub(super) fn decode_answer(answer: [u8; ANSWER_BYTES]) -> Option<Status> {
    let [first, second, status, zero] = answer;
    if [first, second] != *ANSWER_MAGIC || zero != 0 {
        return None;
    }
    Status::ALL.into_iter().find(|known| known.to_wire() == status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token([7; TOKEN_BYTES]);

    #[test]
    fn only_the_whole_token_opens() {
        let preamble = encode(Role::Client, &TOKEN);
        assert_eq!(preamble[..16], *b"SYMPHONY\x01\x01\0\0\0\0\0\0");
        assert_eq!(decode(&preamble, &TOKEN), Ok(Role::Client));
        for place in 0..PREAMBLE_BYTES {
            let mut wrong = preamble;
            wrong[place] ^= 1;
            let status = match place {
                9 => Status::Role,
                16.. => Status::Token,
                _ => Status::Version,
            };
            assert_eq!(decode(&wrong, &TOKEN), Err(status), "{place}");
        }
    }

    #[test]
    fn answers_are_read_as_they_were_written() {
        for status in Status::ALL {
            assert_eq!(decode_answer(encode_answer(status)), Some(status));
        }
        for wrong in [*b"SY\x09\0", *b"HT\0\0", *b"SY\0\x01"] {
            assert_eq!(decode_answer(wrong), None);
        }
    }
}
