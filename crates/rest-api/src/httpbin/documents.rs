//! What the documents and images are.

/// `/html`.
pub const HTML: &str = include_str!("static/sample.html");
/// `/xml`.
pub const XML: &str = include_str!("static/sample.xml");
/// `/json`.
pub const JSON: &str = include_str!("static/sample.json");
/// `/encoding/utf8`.
pub const UTF8: &str = include_str!("static/utf8.html");
/// `/forms/post`; `{prefix}` stands for the path before the API.
pub const FORM: &str = include_str!("static/form.html");
/// `/`, likewise.
pub const INDEX: &str = include_str!("static/index.html");
/// `/image`: kind, type and bytes.
pub const IMAGES: &[(&str, &str, &[u8])] = &[
    ("png", "image/png", include_bytes!("static/anchor.png")),
    ("jpeg", "image/jpeg", include_bytes!("static/anchor.jpeg")),
    ("webp", "image/webp", include_bytes!("static/anchor.webp")),
    ("svg", "image/svg+xml", include_bytes!("static/anchor.svg")),
];
/// 300 in Go's dialect, likewise.
pub const CHOICES: &str = r#"<!doctype html>
<head>
<title>Multiple Choices</title>
</head>
<body>
<ul>
<li><a href="{prefix}/image/jpeg">/image/jpeg</a></li>
<li><a href="{prefix}/image/png">/image/png</a></li>
<li><a href="{prefix}/image/svg">/image/svg</a></li>
</body>
</html>"#;
/// 308 in Go's dialect, likewise.
pub const MOVED: &str = r#"<!doctype html>
<head>
<title>Permanent Redirect</title>
</head>
<body>Permanently redirected to <a href="{prefix}/image/jpeg">{prefix}/image/jpeg</a>
</body>
</html>"#;
/// `/deny`.
pub const DENY: &str = r"
      .--------.
    /    ||    \
   |     ||     |
   |     ||     |
   |            |
    \    []    /
      '--------'
   YOU SHOULDN'T BE HERE
";
/// 418.
pub const TEAPOT: &str = r"
            (
             )
        ___..(.___
   .-. /          \   __
  (   |            | /  )
   '--|            |/  /
       \          /---'
        '-.____.-'
      I'm a teapot!
";
