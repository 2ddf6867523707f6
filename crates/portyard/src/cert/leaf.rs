//! What is asked of a certificate that is no authority's.

use std::path::PathBuf;

use super::key_type::KeyType;

/// The options of every command that makes one.
#[derive(Debug, clap::Args)]
pub struct LeafArgs {
    /// For how many days it is good.
    #[arg(long, value_name = "N", default_value_t = 397)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    /// The kind of key: ec (P-256), rsa (3072 bits), or rsa:2048, rsa:3072, rsa:4096.
    #[arg(long, value_name = "TYPE", default_value_t = KeyType::Ec)]
    pub key_type: KeyType,
    /// Write PREFIX.pem and PREFIX.key; a directory takes them under their usual names.
    #[arg(long, value_name = "PREFIX")]
    pub out: Option<PathBuf>,
    /// Replace the files that are there.
    #[arg(long)]
    pub force: bool,
}
