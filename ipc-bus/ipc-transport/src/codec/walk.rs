//! Over the bytes of one value without decoding it: whether every length in it is true. Must not know types.

/// Why bytes cannot be walked over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// Something goes on after the last byte.
    #[error("the value is cut off after {at} bytes")]
    CutOff {
        /// How many bytes there are.
        at: usize,
    },
    /// There are bytes after the value.
    #[error("{extra} bytes follow the value")]
    Extra {
        /// How many.
        extra: usize,
    },
    /// A variant that the enum does not have, or an option that is neither there nor absent.
    #[error("{tag} before byte {at} is no variant of what is expected")]
    Variant {
        /// The number that came.
        tag: u32,
        /// Where it ends.
        at: usize,
    },
}

/// A place in the bytes of a value.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Walk<'a> {
    /// At the first of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    /// At the end, where a value must end.
    ///
    /// # Errors
    ///
    /// [`WalkError::Extra`].
    pub fn end(self) -> Result<(), WalkError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WalkError::Extra { extra: self.rest.len() }) }
    }

    fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    fn cut_off(&self) -> WalkError {
        WalkError::CutOff { at: self.length }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WalkError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| self.cut_off())?;
        self.rest = rest;
        Ok(*array)
    }

    /// Passes `count` bytes.
    ///
    /// # Errors
    ///
    /// [`WalkError::CutOff`].
    pub fn pass(&mut self, count: usize) -> Result<(), WalkError> {
        self.rest = self.rest.get(count..).ok_or_else(|| self.cut_off())?;
        Ok(())
    }

    /// Passes one byte.
    ///
    /// # Errors
    ///
    /// [`WalkError::CutOff`].
    pub fn byte(&mut self) -> Result<u8, WalkError> {
        Ok(self.array::<1>()?[0])
    }

    /// Passes the number of an enum's variant.
    ///
    /// # Errors
    ///
    /// [`WalkError::CutOff`].
    pub fn variant(&mut self) -> Result<u32, WalkError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// What is wrong with the number that was passed last.
    #[must_use]
    pub fn no_variant(&self, tag: u32) -> WalkError {
        WalkError::Variant { tag, at: self.at() }
    }

    /// Passes a length, of elements that take `size` bytes each or, where that differs, one at least.
    ///
    /// # Errors
    ///
    /// [`WalkError::CutOff`]: as many cannot follow.
    pub fn length(&mut self, size: Option<usize>) -> Result<usize, WalkError> {
        let length = u64::from_le_bytes(self.array()?);
        let length = usize::try_from(length).map_err(|_| self.cut_off())?;
        let bytes = length.checked_mul(size.unwrap_or(1)).ok_or_else(|| self.cut_off())?;
        if bytes > self.rest.len() { Err(self.cut_off()) } else { Ok(length) }
    }
}
