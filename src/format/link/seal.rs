//! What a link's record holds: the title, the sums, and where the index is. Sealed under the link's secret, and within
//! that, if there is a password, under secret and password together; so a wrong password and damage are told apart.

use super::record::{self, SignedRecord, WHAT};
use super::{ChunkRef, LinkError, REFERENCE_LEN_MAX};
use crate::base::{Entropy, LinkId, Name, Timestamp};
use crate::crypto::{
    self, Context, KDF_SALT_LEN, KdfParameters, Key, Kind, PrivateHalf, PublicHalf, SEAL_OVERHEAD, SIGNATURE_LEN,
    Signer, link_content_root, password_key,
};
use crate::format::codec::{FormatError, Reader, Writer};
use crate::format::compress::{compress, decompress};
use crate::format::padding;
use zeroize::Zeroizing;

/// Everything that the owner keeps of a link.
#[derive(Debug, PartialEq, Eq)]
pub struct LinkKeys {
    /// What the records are signed with.
    pub seed: Key,
    pub secret: Key,
    pub protection: LinkProtection,
    /// Whoever can open the link without a secret in it.
    pub recipient: Option<PublicHalf>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum LinkProtection {
    None,
    /// The root is kept, so that a link can be published again without the password.
    Password {
        kdf: KdfParameters,
        salt: [u8; KDF_SALT_LEN],
        root: Key,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Also the name of the shared file or folder in the copy.
    pub title: Name,
    pub published: Timestamp,
    pub kind: RootKind,
    /// Files, and the sum of their sizes.
    pub files: u64,
    pub bytes: u64,
    pub index: Vec<ChunkRef>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKind {
    File,
    Directory,
}

/// A record that its secret has opened.
pub struct Outer {
    record: SignedRecord,
    secret: Key,
    body: Vec<u8>,
}

/// All that is needed to read a link's chunks.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    pub header: Header,
    pub root: Key,
}

/// What a link's writers take. Readers refuse less, and more than `KDF_CEILING`.
const KDF: KdfParameters = KdfParameters::FLOOR;
const KDF_CEILING: KdfParameters = KdfParameters { memory_kib: 1 << 20, passes: 16, lanes: 16 };
/// A record has at most 1 MiB, and references to chunks do not compress.
const INNER_LEN_MAX: u64 = 1 << 20;
/// How many chunks an index can have, so that the record stays within its length.
const INDEX_CHUNKS_MAX: usize = (INNER_LEN_MAX as usize - 4096) / (REFERENCE_LEN_MAX + 8);

impl LinkKeys {
    pub fn generate(recipient: Option<PublicHalf>, entropy: &dyn Entropy) -> Self {
        Self {
            seed: Key::generate(entropy),
            secret: Key::generate(entropy),
            protection: LinkProtection::None,
            recipient,
        }
    }

    /// With a password besides. Takes a moment.
    pub fn with_password(self, password: &[u8], entropy: &dyn Entropy) -> Result<Self, LinkError> {
        let mut salt = [0; KDF_SALT_LEN];
        entropy.fill(&mut salt);
        let root = link_content_root(&self.secret, Some(&password_key(password, &salt, &KDF)?));
        Ok(Self { protection: LinkProtection::Password { kdf: KDF, salt, root }, ..self })
    }

    pub fn has_password(&self, password: &[u8]) -> Result<bool, LinkError> {
        let LinkProtection::Password { kdf, salt, root } = &self.protection else { return Ok(false) };
        Ok(link_content_root(&self.secret, Some(&derive(password, salt, kdf)?)) == *root)
    }

    pub fn signer(&self) -> Signer {
        Signer::from_seed(&self.seed)
    }

    pub fn id(&self) -> LinkId {
        self.signer().verifying_key().link_id()
    }

    /// What the packs' footers are sealed under: only the owner's devices have it.
    pub fn footer_key(&self) -> Key {
        self.seed.derive("link-footer")
    }

    /// What chunks are sealed under.
    pub fn content_root(&self) -> Key {
        match &self.protection {
            LinkProtection::None => link_content_root(&self.secret, None),
            LinkProtection::Password { root, .. } => root.duplicate(),
        }
    }

    /// The record object. Fails if the index has more chunks than a record can name.
    pub fn seal(
        &self,
        number: u64,
        expiry: Option<Timestamp>,
        header: &Header,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, FormatError> {
        let signer = self.signer();
        let link = signer.verifying_key().link_id();
        let expiry = expiry.map_or(0, |at| u64::try_from(at.secs).unwrap_or(0).max(1));
        let to = self.recipient.map(|recipient| {
            let context = Context::of_link(link, Kind::LinkSecret, &[]);
            crypto::seal_to(&recipient, &context, self.secret.expose(), entropy)
        });
        let mut object = record::record_head(&signer, number, expiry, to.as_deref());
        let mut body = self.body(link, number, header.encode()?, entropy);
        padding::pad(&mut body, object.len() + SEAL_OVERHEAD + SIGNATURE_LEN);
        let sealed = {
            let fields: [&[u8]; 2] = [&number.to_le_bytes(), &object];
            crypto::seal_bulk(&self.secret, &Context::of_link(link, Kind::LinkOuter, &fields), &body, entropy)
        };
        object.extend_from_slice(&sealed);
        Ok(record::signed(&signer, object))
    }

    fn body(&self, link: LinkId, number: u64, header: Vec<u8>, entropy: &dyn Entropy) -> Vec<u8> {
        let inner = compress(&header);
        let mut body = Writer::new();
        match &self.protection {
            LinkProtection::None => {
                body.u8(0).raw(&inner);
            }
            LinkProtection::Password { kdf, salt, root } => {
                body.u8(1).u32(kdf.memory_kib).u32(kdf.passes).u32(kdf.lanes).raw(salt);
                let fields: [&[u8]; 1] = [&number.to_le_bytes()];
                let context = Context::of_link(link, Kind::LinkInner, &fields);
                body.raw(&crypto::seal_bulk(root, &context, &inner, entropy));
            }
        }
        body.finish()
    }
}

impl SignedRecord {
    /// The secret of a link that was sealed to a recipient.
    pub fn secret_for(&self, recipient: &PrivateHalf) -> Result<Key, LinkError> {
        let sealed = self.recipient_part().ok_or(LinkError::NotRecipient)?;
        let context = Context::of_link(self.link(), Kind::LinkSecret, &[]);
        let secret = crypto::open_from(recipient, &context, sealed).map_err(|_| LinkError::NotRecipient)?;
        Key::try_from_slice(&Zeroizing::new(secret)).ok_or(LinkError::NotRecipient)
    }

    pub fn open(self, secret: &Key) -> Result<Outer, LinkError> {
        if self.is_tombstone() {
            return Err(LinkError::Revoked);
        }
        let fields: [&[u8]; 2] = [&self.number().to_le_bytes(), self.head()];
        let context = Context::of_link(self.link(), Kind::LinkOuter, &fields);
        let mut body = crypto::open_bulk(secret, &context, self.sealed()).map_err(|_| LinkError::WrongSecret)?;
        let around = self.head().len() + SEAL_OVERHEAD + SIGNATURE_LEN;
        let len = padding::unpad(WHAT, &body, around)?.len();
        body.truncate(len);
        Ok(Outer { record: self, secret: secret.duplicate(), body })
    }
}

impl Outer {
    pub fn record(&self) -> &SignedRecord {
        &self.record
    }

    pub fn needs_password(&self) -> bool {
        self.body.first() == Some(&1)
    }

    /// With a password, takes a moment. One that is given and not needed is ignored.
    pub fn contents(&self, password: Option<&[u8]>) -> Result<Contents, LinkError> {
        let mut reader = Reader::new(WHAT, &self.body);
        match reader.u8()? {
            0 => {
                let header = Header::decode(reader.raw(reader.remaining())?)?;
                Ok(Contents { header, root: link_content_root(&self.secret, None) })
            }
            1 => {
                let kdf = KdfParameters { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
                let salt = reader.array()?;
                let derived = derive(password.ok_or(LinkError::PasswordNeeded)?, &salt, &kdf)?;
                self.inner(link_content_root(&self.secret, Some(&derived)), reader.raw(reader.remaining())?)
            }
            _ => Err(reader.error("a protection that is not known").into()),
        }
    }

    /// For the owner, who needs no password.
    pub fn contents_with(&self, keys: &LinkKeys) -> Result<Contents, LinkError> {
        let mut reader = Reader::new(WHAT, &self.body);
        if reader.u8()? == 0 {
            return self.contents(None);
        }
        reader.raw(3 * 4 + KDF_SALT_LEN)?;
        self.inner(keys.content_root(), reader.raw(reader.remaining())?)
    }

    fn inner(&self, root: Key, sealed: &[u8]) -> Result<Contents, LinkError> {
        let fields: [&[u8]; 1] = [&self.record.number().to_le_bytes()];
        let context = Context::of_link(self.record.link(), Kind::LinkInner, &fields);
        let inner = crypto::open_bulk(&root, &context, sealed).map_err(|_| LinkError::WrongPassword)?;
        Ok(Contents { header: Header::decode(&inner)?, root })
    }
}

impl std::fmt::Debug for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outer({:?})", self.record)
    }
}

/// Refused before it is derived, if it is too cheap or too costly.
fn derive(password: &[u8], salt: &[u8; KDF_SALT_LEN], kdf: &KdfParameters) -> Result<Key, LinkError> {
    check(kdf)?;
    Ok(password_key(password, salt, kdf)?)
}

fn check(kdf: &KdfParameters) -> Result<(), LinkError> {
    kdf.check()?;
    let KdfParameters { memory_kib, passes, lanes } = KDF_CEILING;
    match kdf.memory_kib > memory_kib || kdf.passes > passes || kdf.lanes > lanes {
        true => Err(LinkError::KdfTooCostly),
        false => Ok(()),
    }
}

impl Header {
    fn encode(&self) -> Result<Vec<u8>, FormatError> {
        if self.index.is_empty() || self.index.len() > INDEX_CHUNKS_MAX {
            return Err(FormatError { what: WHAT, why: "more files than one link can hold" });
        }
        let mut out = Writer::new();
        out.bytes(self.title.as_bytes()).time(self.published);
        out.u8(match self.kind {
            RootKind::File => 1,
            RootKind::Directory => 2,
        });
        out.varint(self.files).varint(self.bytes).varint(self.index.len() as u64);
        self.index.iter().for_each(|chunk| chunk.encode(&mut out));
        Ok(out.finish())
    }

    fn decode(inner: &[u8]) -> Result<Self, FormatError> {
        // The length is judged before anything is made of it.
        let mut said = Reader::new(WHAT, inner);
        said.u8()?;
        if said.varint()? > INNER_LEN_MAX {
            return Err(said.error("a body over 1 MiB"));
        }
        let inner = decompress(WHAT, inner)?;
        let mut reader = Reader::new(WHAT, &inner);
        let title = Name::parse(reader.bytes()?).map_err(|_| reader.error("an invalid title"))?;
        let published = reader.time()?;
        let kind = match reader.u8()? {
            1 => RootKind::File,
            2 => RootKind::Directory,
            _ => return Err(reader.error("neither a file nor a directory")),
        };
        let (files, bytes) = (reader.varint()?, reader.varint()?);
        let count = reader.count()?;
        if count == 0 {
            return Err(reader.error("no index"));
        }
        let mut index = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            index.push(ChunkRef::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(Self { title, published, kind, files, bytes, index })
    }
}

#[cfg(test)]
mod tests;
