//! T27: names and ids that would lead elsewhere.

use crate::api::{SOCKET, bring_client};
use crate::on_installed;
use anyhow::ensure;
use holdfast_smoke::{Census, Result};
use std::time::Duration;

const CORPUS: &[u8] = include_bytes!("../probes/corpus.py");

#[test]
fn t27_no_name_leads_anywhere() -> Result {
    on_installed(|host| {
        bring_client(host)?;
        std::fs::write(host.path("/opt/client/corpus.py"), CORPUS)?;
        host.alice().run_worker("--name victim --net none -- sleep infinity")?;
        let census = Census::take(host)?;
        let paths = || -> Result<String> {
            let places = "/var/lib/holdfast /run/holdfast /etc/holdfast /home /tmp /opt";
            let find = format!(
                "find {places} -path '*__pycache__*' -prune -o -printf '%p %u %m\\n' | grep -v 'holdfast.db-' | sort"
            );
            Ok(host.root().run(&find)?.ok()?.text())
        };
        let before = paths()?;
        let line = format!("PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/client python3 /opt/client/corpus.py {SOCKET}");
        let said = host.alice().run_within(Duration::from_secs(240), &line)?;
        ensure!(said.code == 0, "a word of the corpus was taken\n{said}");
        eprintln!("{}", said.text());
        let after = paths()?;
        ensure!(after == before, "paths came or went:\n{before}\n---\n{after}");
        ensure!(host.alice().ps_all()?.len() == 1);
        census.must_hold(host, "the corpus")?;
        Ok(())
    })
}
