//! Endpoints with a content of their own: documents, images, codings.

use std::io::Write as _;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};

use super::{count, go_count, status};
use crate::http::{Response, respond};
use crate::httpbin::answer::{self, Given, Refusal};
use crate::httpbin::asked::Asked;
use crate::httpbin::echo::{self, Extra};
use crate::httpbin::{Dialect, documents, text};

/// `/`.
pub fn index(asked: &Asked) -> Response {
    let page = documents::INDEX.replace("{prefix}", asked.prefix());
    let mut response = answer::html(StatusCode::OK, page);
    let policy = HeaderValue::from_static(match asked.dialect {
        Dialect::Python => "default-src 'none'; style-src 'unsafe-inline'",
        // The original's, though the page needs none of what that lets in.
        Dialect::Go => {
            "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' camo.githubusercontent.com"
        }
    });
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, policy);
    response
}

/// `/html`.
pub fn html(_: &Asked) -> Response {
    answer::html(StatusCode::OK, documents::HTML)
}

/// `/xml`.
pub fn xml(_: &Asked) -> Response {
    respond(StatusCode::OK, "application/xml", documents::XML)
}

/// `/json`.
pub fn json(asked: &Asked) -> Response {
    let media = match asked.dialect {
        Dialect::Python => "application/json",
        Dialect::Go => "application/json; charset=utf-8",
    };
    respond(StatusCode::OK, media, documents::JSON)
}

/// `/robots.txt`.
pub fn robots(asked: &Asked) -> Response {
    text_of(asked, "User-agent: *\nDisallow: /deny\n")
}

/// `/deny`: what robots do not see.
pub fn deny(asked: &Asked) -> Response {
    text_of(asked, documents::DENY)
}

fn text_of(asked: &Asked, text: &'static str) -> Response {
    match asked.dialect {
        Dialect::Python => respond(StatusCode::OK, "text/plain", text),
        Dialect::Go => answer::plain(StatusCode::OK, text),
    }
}

/// `/encoding/utf8`.
pub fn utf8(_: &Asked) -> Response {
    answer::html(StatusCode::OK, documents::UTF8)
}

/// `/forms/post`.
pub fn form(asked: &Asked) -> Response {
    let page = documents::FORM.replace("{prefix}", asked.prefix());
    answer::html(StatusCode::OK, page)
}

/// `/image`: the one that `Accept` names first in the order of the original.
pub fn any_image(asked: &Asked) -> Given {
    let accept = asked.field(&ACCEPT);
    let names = |kind: &str| {
        accept
            .as_ref()
            .is_some_and(|accept| accept.to_ascii_lowercase().contains(kind))
    };
    let no_wish = accept
        .as_ref()
        .is_none_or(|accept| accept.is_empty() && asked.dialect == Dialect::Go);
    let order: &[(&str, &str)] = match asked.dialect {
        Dialect::Python => &[
            ("image/webp", "webp"),
            ("image/svg+xml", "svg"),
            ("image/jpeg", "jpeg"),
            ("image/png", "png"),
            ("image/*", "png"),
        ],
        Dialect::Go => &[
            ("image/*", "png"),
            ("image/png", "png"),
            ("image/webp", "webp"),
            ("image/svg+xml", "svg"),
            ("image/jpeg", "jpeg"),
        ],
    };
    let kind = order
        .iter()
        .find(|(media, _)| names(media))
        .map(|(_, kind)| *kind);
    match (kind, no_wish, asked.dialect) {
        (_, true, _) => image_of(asked, "png"),
        (Some(kind), ..) => image_of(asked, kind),
        (None, false, Dialect::Python) => status::with_status(asked, StatusCode::NOT_ACCEPTABLE),
        (None, false, Dialect::Go) => Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "")),
    }
}

/// `/image/{kind}`.
pub fn image(asked: &Asked) -> Given {
    image_of(asked, asked.parameter(0))
}

fn image_of(asked: &Asked, kind: &str) -> Given {
    let images = documents::IMAGES.iter();
    let found = images.clone().find(|(name, ..)| *name == kind);
    match (found, asked.dialect) {
        (Some((_, media, bytes)), _) => {
            Ok(respond(StatusCode::OK, media, Bytes::from_static(bytes)))
        }
        (None, Dialect::Python) => Err(answer::nothing_there(asked.dialect)),
        (None, Dialect::Go) => Err(Refusal::new(StatusCode::NOT_FOUND, "")),
    }
}

/// `/gzip`.
pub fn gzip(asked: &Asked) -> Given {
    coded(asked, "gzip", "gzipped", |bytes| {
        let mut coder = GzEncoder::new(Vec::new(), Compression::new(4));
        coder.write_all(bytes)?;
        coder.finish()
    })
}

/// `/deflate`: with zlib's frame (RFC 9110, 8.4.1.2).
pub fn deflate(asked: &Asked) -> Given {
    coded(asked, "deflate", "deflated", |bytes| {
        let mut coder = ZlibEncoder::new(Vec::new(), Compression::default());
        coder.write_all(bytes)?;
        coder.finish()
    })
}

/// `/brotli`. go-httpbin has none, and says so.
pub fn brotli(asked: &Asked) -> Given {
    if asked.dialect == Dialect::Go {
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, ""));
    }
    coded(asked, "br", "brotli", |bytes| {
        let mut out = Vec::new();
        let parameters = ::brotli::enc::BrotliEncoderParams {
            quality: 5,
            ..Default::default()
        };
        ::brotli::BrotliCompress(&mut &*bytes, &mut out, &parameters)?;
        Ok(out)
    })
}

/// `/zstd` (RFC 8878), which neither original has.
pub fn zstd(asked: &Asked) -> Given {
    coded(asked, "zstd", "zstd", |bytes| {
        ::zstd::bulk::compress(bytes, 3)
    })
}

fn coded(
    asked: &Asked,
    coding: &'static str,
    flag: &str,
    code: impl FnOnce(&[u8]) -> std::io::Result<Vec<u8>>,
) -> Given {
    let w = match (asked.dialect, flag) {
        // Its name comes last of all.
        (Dialect::Python, "zstd") => echo::with_extra_behind(asked, flag),
        _ => echo::with_extra(asked, Extra::Flag(flag), false),
    };
    let plain = answer::json(StatusCode::OK, asked.dialect, w);
    let bytes = plain.body().bytes().cloned().unwrap_or_default();
    let coded = code(&bytes).map_err(|_| {
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the answer could not be compressed",
        )
    })?;
    let mut response = plain.map(|_| coded.into());
    response
        .headers_mut()
        .insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    Ok(response)
}

/// `/links/{n}` and `/links/{n}/{offset}`.
pub fn links(asked: &Asked) -> Given {
    let prefix = asked.prefix();
    let has_offset = asked.parameters.len() == 2;
    let (links, offset, quote) = match asked.dialect {
        Dialect::Python if !has_offset => {
            let location = format!("{prefix}/links/{}/0", count(asked, 0));
            return answer::redirect(StatusCode::FOUND, &location, asked.dialect);
        }
        Dialect::Python => (count(asked, 0).clamp(1, 200), Some(count(asked, 1)), '\''),
        Dialect::Go => {
            let links = go_count(asked.parameter(0), "link count")?;
            let good = u64::try_from(links).ok().filter(|links| *links <= 256);
            let Some(good) = good else {
                let why = format!("invalid link count: {links} must be in range [0, 256]");
                return Err(Refusal::bad(why));
            };
            if !has_offset {
                let query = asked.query().map(|query| format!("?{query}"));
                let location = format!("{prefix}/links/{links}/0{}", query.unwrap_or_default());
                return answer::redirect(StatusCode::FOUND, &location, asked.dialect);
            }
            let offset = go_count(asked.parameter(1), "offset")?;
            (good, u64::try_from(offset).ok(), '"')
        }
    };
    let mut page = String::from("<html><head><title>Links</title></head><body>");
    for link in 0..links {
        let number = link.to_string();
        if Some(link) == offset {
            page.extend([&number, " "]);
        } else {
            let target = format!("{quote}{prefix}/links/{links}/{number}{quote}");
            page.extend(["<a href=", &target, ">", &number, "</a> "]);
        }
    }
    page.push_str("</body></html>");
    Ok(answer::html(StatusCode::OK, page))
}

/// `/base64/{data}`, and `/base64/encode/{data}` and `/base64/decode/{data}`.
pub fn base64(asked: &Asked) -> Given {
    let (operation, data) = match &asked.parameters[..] {
        [data] => ("decode", data),
        [operation, data] => (operation.as_str(), data),
        _ => return Err(answer::nothing_there(asked.dialect)),
    };
    let max = asked.max_body();
    if data.len() as u64 > max {
        let why = format!("input data exceeds max length of {max}");
        return Err(Refusal::bad(why));
    }
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
    let (safe, standard) = (
        GeneralPurpose::new(&URL_SAFE, config),
        GeneralPurpose::new(&STANDARD, config),
    );
    let result = match (operation, asked.dialect) {
        ("encode", _) => safe.encode(data).into_bytes(),
        ("decode", Dialect::Python) => text::python_base64(data).unwrap_or(NO_BASE64.into()),
        // Go passes over line ends.
        ("decode", Dialect::Go) => match safe
            .decode(data.replace(['\r', '\n'], ""))
            .or_else(|_| standard.decode(data.replace(['\r', '\n'], "")))
        {
            Ok(bytes) => bytes,
            Err(why) => return Err(Refusal::bad(format!("base64 decode failed: {why}"))),
        },
        (other, _) => return Err(Refusal::bad(format!("invalid operation: {other}"))),
    };
    let media = asked
        .argument("content-type")
        .filter(|_| asked.dialect == Dialect::Go);
    match (asked.dialect, media) {
        // httpbin calls it HTML, which makes a stranger's text a page of this host.
        (Dialect::Python, _) => {
            let text = String::from_utf8(result).unwrap_or_else(|_| NO_BASE64.into());
            Ok(answer::plain(StatusCode::OK, text))
        }
        (Dialect::Go, None) => Ok(respond(StatusCode::OK, answer::TEXT, result)),
        (Dialect::Go, Some(media)) => {
            let body = if status::is_dangerous(&media, asked.dialect) {
                text::escape_html(&String::from_utf8_lossy(&result)).into_bytes()
            } else {
                result
            };
            let mut response = respond(StatusCode::OK, answer::TEXT, body);
            answer::set(&mut response, CONTENT_TYPE, &media)?;
            Ok(response)
        }
    }
}

/// What httpbin says of what is no base64.
const NO_BASE64: &str = "Incorrect Base64 data try: SFRUUEJJTiBpcyBhd2Vzb21l";
