//! Connections by number: a token carries the place and how often it was taken before, so that an event for a
//! connection that is gone finds nobody.

/// Names one entry of a [`Slab`] for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    index: u32,
    generation: u32,
}

pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    /// Free places; the last one freed is the next one taken, while its memory is in cache.
    free: Vec<u32>,
}

struct Place<T> {
    generation: u32,
    entry: Option<T>,
}

impl Token {
    /// A name that no entry has.
    pub(super) const fn special(number: u32) -> Token {
        Token {
            index: u32::MAX,
            generation: number,
        }
    }

    /// The entry's place: less than the number of entries that there ever were at once.
    pub(super) fn index(self) -> usize {
        self.index as usize
    }

    pub(super) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_u64(bits: u64) -> Token {
        Token {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab {
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, entry: T) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place {
                generation: 0,
                entry: None,
            });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        place.entry = Some(entry);
        Token {
            index,
            generation: place.generation,
        }
    }

    #[inline]
    pub(super) fn entry(&mut self, token: Token) -> Option<&mut T> {
        let place = self.places.get_mut(token.index as usize)?;
        if place.generation == token.generation {
            place.entry.as_mut()
        } else {
            None
        }
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<T> {
        self.entry(token)?;
        let place = &mut self.places[token.index as usize];
        place.generation = place.generation.wrapping_add(1);
        self.free.push(token.index);
        place.entry.take()
    }

    /// All names in use now.
    pub(super) fn tokens(&self) -> Vec<Token> {
        let taken = self
            .places
            .iter()
            .enumerate()
            .filter(|(_, place)| place.entry.is_some());
        taken
            .map(|(index, place)| Token {
                index: index as u32,
                generation: place.generation,
            })
            .collect()
    }

    /// Who has this place now.
    pub(super) fn token_at(&self, index: usize) -> Option<Token> {
        let place = self.places.get(index)?;
        place.entry.as_ref()?;
        Some(Token {
            index: index as u32,
            generation: place.generation,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_outlives_nobody() {
        let mut slab = Slab::new();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        assert!(slab.is_empty());
        let second = slab.insert("second");
        assert_eq!(second.index, first.index, "the place is taken again");
        assert_eq!(slab.entry(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.entry(second), Some(&mut "second"));
        assert_eq!(slab.tokens(), [second]);
        assert_eq!(slab.token_at(second.index()), Some(second));
        slab.remove(second);
        assert_eq!(slab.token_at(second.index()), None);
    }

    #[test]
    fn tokens_survive_the_kernel() {
        let token = Token {
            index: 7,
            generation: u32::MAX,
        };
        assert_eq!(Token::from_u64(token.to_u64()), token);
        assert_eq!(Slab::<()>::new().entry(Token::special(0)), None);
    }
}
