//! Authentication by shared key: where the keys come from, and who must prove one.

mod key_file;

pub use key_file::{FILE_MAX, KEYS_MAX, KeyFileError, is_key_name, key_line, read_keys};
