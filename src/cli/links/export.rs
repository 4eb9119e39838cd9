//! `hushfs share export`: a link as a page that needs no server.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::args::ExportArgs;
use super::perform::get_failure;
use crate::base::{Clock, SystemClock};
use crate::cli::commands::{block_on, say};
use crate::cli::drive;
use crate::cli::exit::{Code, Failure, OrExit, Outcome};
use crate::format::link::{LinkUrl, Status};
use crate::gateway::{BoxError, BoxSource, Ciphertext, Exported, INSIDE_MAX, export_page};
use crate::share::get::{BucketSource, Gone, LinkSource};

pub fn export(args: &ExportArgs) -> Outcome {
    let link = LinkUrl::parse(&args.link).or_exit(Code::Usage)?;
    if args.with_key && link.secret.is_none() {
        return Err(Failure::usage("--with-key: this link holds no key, as it is for a recipient"));
    }
    let secret = link.secret.as_ref().filter(|_| args.with_key);
    let beside = args.file.with_extension("hushbox");
    let beside_name = beside.file_name().and_then(|name| name.to_str());
    let beside_name = beside_name.ok_or_else(|| Failure::usage("the file's name is not UTF-8"))?;
    let is_inside = block_on(async {
        let store = drive::store(&args.reach.store(&args.store)?)?;
        let record = BucketSource::new(store.clone()).newest(link.id).await.map_err(get_failure)?;
        if record.status(SystemClock.now()) != Status::Current {
            return Err(get_failure(Gone::Expired.into()));
        }
        let source = BoxSource::open(store, record).await.map_err(box_failure)?;
        let is_inside = source.len() <= INSIDE_MAX;
        let mut boxed = Vec::new();
        if is_inside {
            source.write(&mut boxed).await.map_err(box_failure)?;
        }
        let ciphertext = if is_inside { Ciphertext::Inside(&boxed) } else { Ciphertext::Beside(beside_name) };
        let page = export_page(&Exported { link: link.id, ciphertext, secret });
        // The page first: it is the one whose name was chosen, and may be taken.
        let mut file = create(&args.file)?;
        file.write_all(page.as_bytes())?;
        if !is_inside {
            let mut out = BufWriter::new(create(&beside)?);
            source.write(&mut out).await.map_err(box_failure)?;
            out.flush()?;
        }
        Ok(is_inside)
    })?;
    let mut lines = vec![format!("{} opens in any browser, without a server.", args.file.display())];
    if !is_inside {
        lines.push(format!("It asks for {}: keep the two together.", beside.display()));
    }
    if secret.is_some() {
        lines.push("The key is in it: whoever has the file can read it.".into());
    } else {
        lines.push("It asks for the link, which is its key.".into());
    }
    say(&lines.join("\n"))
}

fn create(path: &Path) -> Outcome<File> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.map_err(|error| Failure::from(error).context(path.display().to_string()))
}

fn box_failure(error: BoxError) -> Failure {
    match error {
        BoxError::Store(_) => Failure::from(error).with_code(Code::StoreUnreachable),
        BoxError::Changed | BoxError::Write(_) => Failure::from(error),
    }
}
