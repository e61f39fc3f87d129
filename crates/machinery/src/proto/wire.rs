//! The wire format: tagged payloads, one after the other.

/// What follows a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// Empty for a number.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }

    /// Zero for bytes.
    pub fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => 0,
        }
    }
}

/// Iterates over a message's fields: number and payload.
pub struct Wire<'a>(pub &'a [u8]);

impl<'a> Wire<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("unexpected end")?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Payload<'a>), &'static str> {
        let tag = varint(&mut self.0)?;
        let number = u32::try_from(tag >> 3).map_err(|_| "a field number is too large")?;
        let payload = match tag & 7 {
            0 => Payload::Number(varint(&mut self.0)?),
            1 => Payload::Number(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| "unexpected end")?)),
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).map_err(|_| "a length is too large")?;
                Payload::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?.try_into().map_err(|_| "unexpected end")?;
                Payload::Number(u64::from(u32::from_le_bytes(bytes)))
            }
            _ => return Err("unknown wire type"),
        };
        Ok((number, payload))
    }
}

impl<'a> Iterator for Wire<'a> {
    type Item = Result<(u32, Payload<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The numbers of a packed list.
pub fn packed(mut bytes: &[u8]) -> impl Iterator<Item = Result<u64, &'static str>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let number = varint(&mut bytes);
        if number.is_err() {
            bytes = &[];
        }
        Some(number)
    })
}

fn varint(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or("unexpected end")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long")
}

/// Writes what stands before the content of a length-delimited field.
pub fn prefix(out: &mut Vec<u8>, field: u32, length: usize) {
    write_varint(out, u64::from(field) << 3 | 2);
    write_varint(out, length as u64);
}

/// Writes a length-delimited field.
pub fn bytes(out: &mut Vec<u8>, field: u32, content: &[u8]) {
    prefix(out, field, content.len());
    out.extend_from_slice(content);
}

/// Writes a varint field.
pub fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    write_varint(out, u64::from(field) << 3);
    write_varint(out, value);
}

/// Writes a fixed64 field.
pub fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    write_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Writes a message field: `body` first, then its length in front of it.
pub fn nested<E>(
    out: &mut Vec<u8>,
    field: u32,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    write_varint(out, u64::from(field) << 3 | 2);
    // Most messages are short enough for one byte of length.
    let at = out.len();
    out.push(0);
    body(out)?;
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
    } else {
        let mut prefix = Vec::with_capacity(5);
        write_varint(&mut prefix, length as u64);
        out.splice(at..=at, prefix);
    }
    Ok(())
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
