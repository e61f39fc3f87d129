//! The ciphers of encryption at rest, byte for byte in upstream's formats.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    self, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::hkdf::{self, KeyType, Prk};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand;
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};

const BOX_NONCE: usize = 24;
const BLOCK: usize = 16;
/// Bytes of a data key, of the seed it may come from, and of the info that goes into deriving it.
pub const SEED: usize = 32;

/// Why stored bytes do not become a value, or a value no stored bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CipherError {
    #[error("the stored data was shorter than the required size")]
    Short,
    #[error("{0} does not accept the key")]
    Key(&'static str),
    #[error("{0}: message authentication failed")]
    Open(&'static str),
    #[error("{0}: encryption failed")]
    Seal(&'static str),
}

/// Encrypts with a key given in the configuration.
pub enum Cipher {
    /// AES-GCM with random nonces; the storage key is authenticated with the value.
    AesGcm(LessSafeKey),
    /// AES-CBC with PKCS#7 padding. Authenticates nothing.
    AesCbc(Box<(PaddedBlockEncryptingKey, PaddedBlockDecryptingKey)>),
    /// XSalsa20 and Poly1305 as NaCl's secretbox has them.
    Secretbox(Box<XSalsa20Poly1305>),
}

impl Cipher {
    pub fn aes_gcm(key: &[u8]) -> Result<Self, CipherError> {
        gcm_key(key).map(Self::AesGcm)
    }

    pub fn aes_cbc(key: &[u8]) -> Result<Self, CipherError> {
        let refused = |_| CipherError::Key("AES-CBC");
        let algorithm = match key.len() {
            16 => &cipher::AES_128,
            24 => &cipher::AES_192,
            _ => &cipher::AES_256,
        };
        let unbound = || UnboundCipherKey::new(algorithm, key).map_err(refused);
        let encrypting = PaddedBlockEncryptingKey::cbc_pkcs7(unbound()?).map_err(refused)?;
        let decrypting = PaddedBlockDecryptingKey::cbc_pkcs7(unbound()?).map_err(refused)?;
        Ok(Self::AesCbc(Box::new((encrypting, decrypting))))
    }

    pub fn secretbox(key: &[u8]) -> Result<Self, CipherError> {
        let cipher = XSalsa20Poly1305::new_from_slice(key).map_err(|_| CipherError::Key("secretbox"))?;
        Ok(Self::Secretbox(Box::new(cipher)))
    }

    pub fn seal(&self, value: &[u8], context: &[u8]) -> Result<Vec<u8>, CipherError> {
        match self {
            Self::AesGcm(key) => seal(key, value, context),
            Self::AesCbc(keys) => {
                let mut out = value.to_vec();
                let used = keys.0.encrypt(&mut out).map_err(|_| CipherError::Seal("AES-CBC"))?;
                let DecryptionContext::Iv128(iv) = used else { return Err(CipherError::Seal("AES-CBC")) };
                out.splice(..0, iv.as_ref().iter().copied());
                Ok(out)
            }
            Self::Secretbox(cipher) => {
                let nonce: [u8; BOX_NONCE] = random().ok_or(CipherError::Seal("secretbox"))?;
                let sealed =
                    cipher.encrypt(&nonce.into(), value).map_err(|_| CipherError::Seal("secretbox"))?;
                Ok([&nonce[..], &sealed].concat())
            }
        }
    }

    pub fn open(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, CipherError> {
        match self {
            Self::AesGcm(key) => open(key, data, context),
            Self::AesCbc(keys) => {
                let (iv, body) = data.split_at_checked(BLOCK).ok_or(CipherError::Short)?;
                let iv: [u8; BLOCK] = iv.try_into().map_err(|_| CipherError::Short)?;
                let mut out = body.to_vec();
                let context = DecryptionContext::Iv128(FixedLength::from(iv));
                let size = keys.1.decrypt(&mut out, context).map_err(|_| CipherError::Open("AES-CBC"))?.len();
                out.truncate(size);
                Ok(out)
            }
            Self::Secretbox(cipher) => {
                let (nonce, body) = data.split_at_checked(BOX_NONCE).ok_or(CipherError::Short)?;
                let nonce: [u8; BOX_NONCE] = nonce.try_into().map_err(|_| CipherError::Short)?;
                cipher.decrypt(&nonce.into(), body).map_err(|_| CipherError::Open("secretbox"))
            }
        }
    }
}

/// What a key management plugin's plaintext encrypts with.
pub enum DataKey {
    /// The key itself; only read, for values of older servers.
    Key(LessSafeKey),
    /// A key of its own per value, derived from a seed: no nonce can ever repeat under one key.
    Seed(Prk),
}

impl DataKey {
    pub fn key(key: &[u8]) -> Result<Self, CipherError> {
        gcm_key(key).map(Self::Key)
    }

    pub fn seed(seed: &[u8]) -> Result<Self, CipherError> {
        if seed.len() < SEED {
            return Err(CipherError::Key("the key derivation"));
        }
        Ok(Self::Seed(Prk::new_less_safe(hkdf::HKDF_SHA256, seed)))
    }

    pub fn seal(&self, value: &[u8], context: &[u8]) -> Result<Vec<u8>, CipherError> {
        match self {
            Self::Key(key) => seal(key, value, context),
            Self::Seed(seed) => {
                let info: [u8; SEED] = random().ok_or(CipherError::Seal("AES-GCM"))?;
                let sealed = seal(&derive(seed, &info)?, value, context)?;
                Ok([&info[..], &sealed].concat())
            }
        }
    }

    pub fn open(&self, data: &[u8], context: &[u8]) -> Result<Vec<u8>, CipherError> {
        match self {
            Self::Key(key) => open(key, data, context),
            Self::Seed(seed) => {
                let (info, body) = data.split_at_checked(SEED).ok_or(CipherError::Short)?;
                open(&derive(seed, info)?, body, context)
            }
        }
    }
}

pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        SEED
    }
}

fn derive(seed: &Prk, info: &[u8]) -> Result<LessSafeKey, CipherError> {
    let mut key = [0; SEED];
    let refused = |_| CipherError::Key("the key derivation");
    seed.expand(&[info], Length).map_err(refused)?.fill(&mut key).map_err(refused)?;
    gcm_key(&key)
}

fn gcm_key(key: &[u8]) -> Result<LessSafeKey, CipherError> {
    let algorithm = match key.len() {
        16 => &aead::AES_128_GCM,
        24 => &aead::AES_192_GCM,
        _ => &aead::AES_256_GCM,
    };
    UnboundKey::new(algorithm, key).map(LessSafeKey::new).map_err(|_| CipherError::Key("AES-GCM"))
}

fn seal(key: &LessSafeKey, value: &[u8], context: &[u8]) -> Result<Vec<u8>, CipherError> {
    let failed = CipherError::Seal("AES-GCM");
    let Some(nonce) = random::<NONCE_LEN>() else { return Err(failed) };
    let mut body = value.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut body)
        .map_err(|_| failed)?;
    Ok([&nonce[..], &body].concat())
}

fn open(key: &LessSafeKey, data: &[u8], context: &[u8]) -> Result<Vec<u8>, CipherError> {
    let (nonce, body) = data.split_at_checked(NONCE_LEN).ok_or(CipherError::Short)?;
    let nonce: [u8; NONCE_LEN] = nonce.try_into().map_err(|_| CipherError::Short)?;
    let mut out = body.to_vec();
    let size = key
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut out)
        .map_err(|_| CipherError::Open("AES-GCM"))?
        .len();
    out.truncate(size);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_alone() {
        let key = |n: usize, fill: u8| vec![fill; n];
        type Make = fn(&[u8]) -> Result<Cipher, CipherError>;
        let cases: [(Make, usize, bool); 7] = [
            (Cipher::aes_gcm, 16, true),
            (Cipher::aes_gcm, 24, true),
            (Cipher::aes_gcm, 32, true),
            (Cipher::aes_cbc, 16, false),
            (Cipher::aes_cbc, 24, false),
            (Cipher::aes_cbc, 32, false),
            (Cipher::secretbox, 32, false),
        ];
        for (make, size, bound) in cases {
            let cipher = make(&key(size, 7)).expect("a key");
            for value in [&b""[..], b"0123456789abcdef", b"a longer value than one block"] {
                let sealed = cipher.seal(value, b"/registry/secrets/a/b").expect("sealed");
                assert_eq!(cipher.open(&sealed, b"/registry/secrets/a/b").as_deref(), Ok(value));
                assert!(value.is_empty() || !sealed.windows(value.len()).any(|w| w == value));
                assert_eq!(cipher.open(&sealed, b"/registry/secrets/a/c").is_err(), bound);
                let other = make(&key(size, 8)).expect("a key");
                assert_ne!(other.open(&sealed, b"/registry/secrets/a/b").as_deref(), Ok(value));
            }
            assert_eq!(cipher.open(b"short", b""), Err(CipherError::Short));
        }
    }

    #[test]
    fn every_value_has_a_key_of_its_own() {
        let seed = DataKey::seed(&[3; SEED]).expect("a seed");
        let (one, two) = (seed.seal(b"v", b"k").expect("sealed"), seed.seal(b"v", b"k").expect("sealed"));
        assert_ne!(one[..SEED], two[..SEED]);
        assert_eq!(seed.open(&one, b"k").as_deref(), Ok(&b"v"[..]));
        assert!(DataKey::seed(&[3; 16]).is_err());
    }

    /// NaCl's own test vector (`tests/secretbox.c`), with the nonce in front as it is stored.
    #[test]
    fn a_secretbox_of_another_implementation_opens() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len() / 2)
                .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
                .collect()
        };
        let key = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
        let nonce = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37");
        let cipher = Cipher::secretbox(&key).expect("a key");
        let Cipher::Secretbox(inner) = &cipher else { panic!("no secretbox") };
        let fixed: [u8; BOX_NONCE] = nonce.clone().try_into().expect("a nonce");
        let sealed = inner.encrypt(&fixed.into(), &hex("be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705")[..]).expect("sealed");
        assert_eq!(
            &sealed[..32],
            &hex("f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce")[..]
        );
    }
}
