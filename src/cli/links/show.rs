//! Links and their progress, for people.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::protocol::Link;
use crate::base::ByteSize;
use crate::cli::status::counted;
use crate::share::{LinkState, Progress};

pub(super) fn table(links: &[Link]) -> String {
    if links.is_empty() {
        return "no links".into();
    }
    let header =
        format!("{:<32}  {:<10}  {:>10}  {:<20}  {:<20}  {}", "ID", "STATE", "SIZE", "MADE", "EXPIRES", "WHAT");
    let line = |link: &Link| {
        let expires = link.expires.as_deref().unwrap_or("never");
        let size = ByteSize(link.bytes).to_string();
        let what = match link.printable_path() {
            path if path.ends_with(&format!("/{}", link.printable_title())) => path,
            path => format!("{path} as {}", link.printable_title()),
        };
        let marks = marks(link);
        format!(
            "{:<32}  {:<10}  {size:>10}  {:<20}  {expires:<20}  {what}{marks}",
            link.id,
            state(link.state),
            link.created
        )
    };
    std::iter::once(header).chain(links.iter().map(line)).collect::<Vec<_>>().join("\n")
}

fn marks(link: &Link) -> String {
    let marks = [(link.live, "live"), (link.password, "password"), (link.recipient, "recipient")];
    let marks: Vec<_> = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
    if marks.is_empty() { String::new() } else { format!("  [{}]", marks.join(", ")) }
}

pub(super) fn details(link: &Link) -> String {
    let mut lines = vec![
        format!("what      {}", link.printable_path()),
        format!("called    {}", link.printable_title()),
        format!("state     {}{}", state(link.state), marks(link)),
        format!("content   {}, {}", counted(link.files, "file"), ByteSize(link.bytes)),
        format!("made      {}", link.created),
        format!("expires   {}", link.expires.as_deref().unwrap_or("never")),
        format!("version   {}", link.version),
    ];
    if let Some(url) = &link.link {
        lines.push(format!("link      {url}"));
    }
    lines.join("\n")
}

fn state(state: LinkState) -> &'static str {
    match state {
        LinkState::Unfinished => "unfinished",
        LinkState::Published => "published",
        LinkState::Expired => "expired",
        LinkState::Revoked => "taken back",
    }
}

/// On standard error, if that is a terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub fn new(what: String) -> Self {
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_prefix(what);
        let template = "{prefix} {bar:20} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {wide_msg}";
        // The template is a constant; if it were wrong the bar would only look different.
        Self(ProgressStyle::with_template(template).map(|style| bar.clone().with_style(style)).unwrap_or(bar))
    }

    pub fn show(&self, files: (u64, u64), bytes: (u64, u64), more: &str) {
        self.0.set_length(bytes.1);
        self.0.set_position(bytes.0);
        self.0.set_message(format!("{} of {}, {more}", files.0, counted(files.1, "file")));
    }

    pub fn sharing(&self, progress: &Progress) {
        let sent = format!("{} sent", ByteSize(progress.sent_bytes));
        self.show((progress.files, progress.files_total), (progress.bytes, progress.bytes_total), &sent);
    }

    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_chose_does_nothing_on_a_terminal() {
        let link = Link {
            id: "00".repeat(16),
            state: LinkState::Published,
            title: "a\u{1b}[2Jb".into(),
            path: "/x/\u{202e}y".into(),
            created: "2024-01-01T00:00:00Z".into(),
            expires: None,
            live: true,
            password: true,
            recipient: false,
            version: 1,
            files: 1,
            bytes: 5,
            link: None,
        };
        for text in [table(std::slice::from_ref(&link)), details(&link)] {
            assert!(text.contains("a\\x1b[2Jb") && !text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
            assert!(text.contains("[live, password]"));
        }
    }
}
