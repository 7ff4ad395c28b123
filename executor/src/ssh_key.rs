//! Private ssh keys, read from the files that `ssh-keygen` and `openssl` write, and the answers that an agent with such keys
//! gives (draft-ietf-sshm-ssh-agent, RFC 4253, 5656 and 8332). What a key is never leaves the process.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};

/// A key that signs for a step.
pub struct SshKey {
    /// As ssh writes a public key.
    public: Vec<u8>,
    comment: Vec<u8>,
    signer: Signer,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    Ecdsa(&'static Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

struct Curve {
    name: &'static str,
    /// Of a private key, in bytes.
    size: usize,
    algorithm: &'static EcdsaSigningAlgorithm,
}

static CURVES: [Curve; 2] = [
    Curve { name: "nistp256", size: 32, algorithm: &ECDSA_P256_SHA256_FIXED_SIGNING },
    Curve { name: "nistp384", size: 48, algorithm: &ECDSA_P384_SHA384_FIXED_SIGNING },
];

/// Why a file is no key that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("it is protected by a passphrase, which nobody can be asked for here")]
    Encrypted,
    #[error("it is no private key in a form that ssh-keygen writes")]
    NoKey,
    #[error("keys of the type {0} can't be used")]
    Unknown(String),
    #[error("it is damaged")]
    Damaged,
}

type Result<T, E = KeyError> = std::result::Result<T, E>;

const MAGIC: &[u8] = b"openssh-key-v1\0";
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_RESPONSE: u8 = 14;
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// The answer to the request for keys.
pub(crate) fn identities(keys: &[SshKey]) -> Vec<u8> {
    let mut answer = vec![IDENTITIES_ANSWER];
    answer.extend_from_slice(&length(keys.len()));
    for key in keys {
        string(&mut answer, &key.public);
        string(&mut answer, &key.comment);
    }
    answer
}

/// The answer to a request for a signature, which is what stands behind its number. None: there is no such key, or it
/// can't sign that way.
pub(crate) fn sign(keys: &[SshKey], request: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader(request);
    let (public, data) = (reader.string().ok()?, reader.string().ok()?);
    let flags = reader.number().ok()?;
    let key = keys.iter().find(|key| key.public == public)?;
    let mut answer = vec![SIGN_RESPONSE];
    string(&mut answer, &key.signature(data, flags)?);
    Some(answer)
}

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SshKey")
    }
}

impl SshKey {
    /// # Errors
    /// When it is no key, or one that can't be used as it is.
    pub fn parse(file: &[u8]) -> Result<SshKey> {
        let text = str::from_utf8(file).map_err(|_| KeyError::NoKey)?;
        let (label, rest) = text
            .split_once("-----BEGIN ")
            .and_then(|(_, rest)| rest.split_once("-----"))
            .ok_or(KeyError::NoKey)?;
        let body = rest.split_once(&format!("-----END {label}-----")).ok_or(KeyError::Damaged)?.0;
        if label == "ENCRYPTED PRIVATE KEY" || body.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let body: String = body.split_whitespace().collect();
        let bytes = STANDARD.decode(body).map_err(|_| KeyError::Damaged)?;
        match label {
            "OPENSSH PRIVATE KEY" => openssh(&bytes),
            "RSA PRIVATE KEY" => rsa(RsaKeyPair::from_der(&bytes).map_err(|_| KeyError::Damaged)?, b""),
            "PRIVATE KEY" => pkcs8(&bytes),
            label if label.ends_with("PRIVATE KEY") => Err(KeyError::Unknown(label.to_owned())),
            _ => Err(KeyError::NoKey),
        }
    }

    fn signature(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let mut signature = Vec::new();
        match &self.signer {
            Signer::Ed25519(pair) => {
                string(&mut signature, b"ssh-ed25519");
                string(&mut signature, pair.sign(data).as_ref());
            }
            Signer::Ecdsa(curve, pair) => {
                let both = pair.sign(&random, data).ok()?;
                let (r, s) = both.as_ref().split_at(curve.size);
                let mut numbers = Vec::new();
                integer(&mut numbers, r);
                integer(&mut numbers, s);
                string(&mut signature, format!("ecdsa-sha2-{}", curve.name).as_bytes());
                string(&mut signature, &numbers);
            }
            Signer::Rsa(pair) => {
                // SHA-1, which is meant by no flag, is not for signatures any more.
                let (name, encoding) = match flags {
                    flags if flags & RSA_SHA2_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & RSA_SHA2_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut bytes = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &random, data, &mut bytes).ok()?;
                string(&mut signature, name.as_bytes());
                string(&mut signature, &bytes);
            }
        }
        Some(signature)
    }
}

/// The format of OpenSSH's PROTOCOL.key.
fn openssh(bytes: &[u8]) -> Result<SshKey> {
    let mut outer = Reader(bytes.strip_prefix(MAGIC).ok_or(KeyError::Damaged)?);
    let (cipher, _kdf, _options) = (outer.string()?, outer.string()?, outer.string()?);
    if cipher != b"none" {
        return Err(KeyError::Encrypted);
    }
    if outer.number()? != 1 {
        return Err(KeyError::Damaged);
    }
    let (_public, private) = (outer.string()?, outer.string()?);
    let mut key = Reader(private);
    if key.number()? != key.number()? {
        return Err(KeyError::Damaged);
    }
    let kind = key.string()?;
    match kind {
        b"ssh-ed25519" => {
            let (public, private) = (key.string()?, key.string()?);
            let seed = private.get(..32).ok_or(KeyError::Damaged)?;
            let pair =
                Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| KeyError::Damaged)?;
            Ok(ed25519(pair, key.string()?))
        }
        b"ssh-rsa" => {
            let (n, e, d) = (key.integer()?, key.integer()?, key.integer()?);
            let (q_inv, p, q) = (key.integer()?, key.integer()?, key.integer()?);
            let (d_p, d_q) = (remainder_before(d, p), remainder_before(d, q));
            let (public_key, d_p, d_q) = (PublicKeyComponents { n, e }, d_p.as_slice(), d_q.as_slice());
            let parts = KeyPairComponents { public_key, d, p, q, dP: d_p, dQ: d_q, qInv: q_inv };
            rsa(RsaKeyPair::from_components(&parts).map_err(|_| KeyError::Damaged)?, key.string()?)
        }
        kind => {
            let name = kind.strip_prefix(b"ecdsa-sha2-").unwrap_or_default();
            let curve = CURVES.iter().find(|curve| curve.name.as_bytes() == name);
            let curve = curve.ok_or_else(|| KeyError::Unknown(String::from_utf8_lossy(kind).into_owned()))?;
            let (_name, public, private) = (key.string()?, key.string()?, key.integer()?);
            let missing = curve.size.checked_sub(private.len()).ok_or(KeyError::Damaged)?;
            let private = [vec![0; missing], private.to_vec()].concat();
            let random = SystemRandom::new();
            let pair =
                EcdsaKeyPair::from_private_key_and_public_key(curve.algorithm, &private, public, &random);
            Ok(ecdsa(curve, pair.map_err(|_| KeyError::Damaged)?, key.string()?))
        }
    }
}

fn pkcs8(bytes: &[u8]) -> Result<SshKey> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
        return Ok(ed25519(pair, b""));
    }
    for curve in &CURVES {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve.algorithm, bytes, &SystemRandom::new()) {
            return Ok(ecdsa(curve, pair, b""));
        }
    }
    let pair = RsaKeyPair::from_pkcs8(bytes);
    pair.map_or_else(|_| Err(KeyError::Unknown("in this PKCS #8 file".to_owned())), |pair| rsa(pair, b""))
}

fn ed25519(pair: Ed25519KeyPair, comment: &[u8]) -> SshKey {
    let mut public = Vec::new();
    string(&mut public, b"ssh-ed25519");
    string(&mut public, pair.public_key().as_ref());
    SshKey { public, comment: comment.to_vec(), signer: Signer::Ed25519(pair) }
}

fn ecdsa(curve: &'static Curve, pair: EcdsaKeyPair, comment: &[u8]) -> SshKey {
    let mut public = Vec::new();
    string(&mut public, format!("ecdsa-sha2-{}", curve.name).as_bytes());
    string(&mut public, curve.name.as_bytes());
    string(&mut public, pair.public_key().as_ref());
    SshKey { public, comment: comment.to_vec(), signer: Signer::Ecdsa(curve, pair) }
}

fn rsa(pair: RsaKeyPair, comment: &[u8]) -> Result<SshKey> {
    let parts: PublicKeyComponents<Vec<u8>> = pair.public().into();
    let mut public = Vec::new();
    string(&mut public, b"ssh-rsa");
    integer(&mut public, &parts.e);
    integer(&mut public, &parts.n);
    Ok(SshKey { public, comment: comment.to_vec(), signer: Signer::Rsa(pair) })
}

/// The remainder of `number` divided by one less than `divisor`, an odd number; both in big-endian bytes.
fn remainder_before(number: &[u8], divisor: &[u8]) -> Vec<u8> {
    let mut divisor = divisor.to_vec();
    if let Some(last) = divisor.last_mut() {
        *last &= 0xfe;
    }
    // One byte more than the divisor, for what a shift carries out.
    divisor.insert(0, 0);
    let mut rest = vec![0u8; divisor.len()];
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
        if rest >= divisor {
            let mut borrow = false;
            for (byte, part) in rest.iter_mut().zip(&divisor).rev() {
                let (first, below) = byte.overflowing_sub(*part);
                let (second, again) = first.overflowing_sub(u8::from(borrow));
                (*byte, borrow) = (second, below || again);
            }
        }
    }
    let zeros = rest.iter().take_while(|byte| **byte == 0).count();
    rest.split_off(zeros)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Result<u32> {
        let (bytes, rest) = self.0.split_first_chunk::<4>().ok_or(KeyError::Damaged)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    fn string(&mut self) -> Result<&'a [u8]> {
        let length = self.number()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(KeyError::Damaged)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A positive number without leading zeros.
    fn integer(&mut self) -> Result<&'a [u8]> {
        let bytes = self.string()?;
        Ok(&bytes[bytes.iter().take_while(|byte| **byte == 0).count()..])
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

fn string(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&length(bytes.len()));
    to.extend_from_slice(bytes);
}

fn integer(to: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { &[0][..] } else { &[] };
    string(to, &[sign, bytes].concat());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remainder_is_that_of_one_less() {
        for (number, divisor) in [(1_000_003u64, 97u64), (12, 13), (11, 13), (5, 13), (u64::MAX, 65537)] {
            let (number_bytes, divisor_bytes) = (number.to_be_bytes(), divisor.to_be_bytes());
            let rest = remainder_before(&number_bytes, &divisor_bytes);
            let value = rest.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
            assert_eq!(value, number % (divisor - 1), "{number} {divisor}");
        }
    }

    #[test]
    fn what_is_no_key_is_told_and_never_a_panic() {
        let pem = |label: &str, bytes: &[u8]| {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(bytes))
        };
        let parse = |text: &str| SshKey::parse(text.as_bytes()).map(|_| ());
        assert_eq!(parse("ssh-ed25519 AAAA me@here"), Err(KeyError::NoKey));
        assert_eq!(parse("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA"), Err(KeyError::Damaged));
        assert_eq!(parse(&pem("OPENSSH PRIVATE KEY", b"x")), Err(KeyError::Damaged));
        assert_eq!(parse(&pem("ENCRYPTED PRIVATE KEY", b"x")), Err(KeyError::Encrypted));
        assert_eq!(parse(&pem("DSA PRIVATE KEY", b"x")), Err(KeyError::Unknown("DSA PRIVATE KEY".into())));
        assert_eq!(parse(&pem("CERTIFICATE", b"x")), Err(KeyError::NoKey));
        let mut key = MAGIC.to_vec();
        for word in [&b"none"[..], b"none", b""] {
            string(&mut key, word);
        }
        key.extend([0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        for end in 0..=key.len() {
            assert!(parse(&pem("OPENSSH PRIVATE KEY", &key[..end])).is_err());
        }
        assert!(sign(&[], &[0, 0, 0, 9, 1]).is_none());
    }
}
