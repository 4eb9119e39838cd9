#!/usr/bin/env bash
# Real programs on a mounted drive and on the local disk, one after the other: what they print must be the same.
# At the end the drive is mounted by a machine that has nothing but the store, and all files must be as they were.
# Installs what it needs; run it as root, since PostgreSQL runs as a user of its own.
#   scripts/programs.sh [PROGRAM...]     such as: scripts/programs.sh sqlite git
set -euo pipefail
cd "$(dirname "$0")/.."
all=(sqlite git cargo rsync postgres lmdb tar mailbox editor)
[ "$(id -u)" = 0 ] || { echo "programs.sh: run it as root" >&2; exit 2; }

scripts/install.sh programs
cargo build
hushfs=$(realpath "${CARGO_TARGET_DIR:-target}/debug/hushfs")
postgres=$(find /usr/lib/postgresql -maxdepth 2 -name bin | sort -V | tail -n 1)

work=$(mktemp -d "${TMPDIR:-/tmp}/hushfs-programs.XXXXXX")
chmod 755 "$work"
export HUSHFS_PASSWORD=programs XDG_RUNTIME_DIR=$work
mounted() { grep -qF " $work/drive " /proc/self/mounts; }
cleanup() {
    set +e
    if mounted; then "$hushfs" umount --no-wait "$work/drive" || umount -l "$work/drive"; fi
    rm -rf "$work"
}
trap cleanup EXIT
mount_as() {
    "$hushfs" mount "$work/store" "$work/drive" -o allow_other,suid,dev --state-dir "$work/$1/state" \
        --cache-dir "$work/$1/cache"
}

# Each gets a folder of its own, and prints what must be the same on any disk.

run_sqlite() {
    local mode writer
    for mode in DELETE WAL; do
        sqlite3 "$mode.db" "PRAGMA journal_mode = $mode" "CREATE TABLE t(who INTEGER, n INTEGER, text TEXT)"
        for writer in 1 2 3 4; do
            for n in $(seq 40); do
                echo "INSERT INTO t VALUES ($writer, $n, printf('%.*c', 500, 'x')); SELECT count(*) > 0 FROM t;"
            done | sqlite3 -cmd ".timeout 60000" "$mode.db" >/dev/null &
        done
        wait
        # A writer that dies in the middle leaves a journal, which the next one undoes.
        mkfifo "$mode.commands"
        sqlite3 "$mode.db" <"$mode.commands" >/dev/null &
        writer=$!
        exec 3>"$mode.commands"
        echo "PRAGMA cache_size = 1; BEGIN; UPDATE t SET n = -1;" >&3
        sleep 1
        kill -9 $writer
        exec 3>&-
        wait $writer || true
        sqlite3 "$mode.db" "PRAGMA integrity_check; SELECT who, count(*), sum(n) FROM t GROUP BY who; VACUUM;
            PRAGMA integrity_check; SELECT count(*) FROM t"
    done
    sqlite_threads
}

# As programs with a pool of connections do.
sqlite_threads() {
    /usr/bin/python3 - <<'PYTHON'
import sqlite3, threading
for mode in ("DELETE", "WAL"):
    def connect():
        return sqlite3.connect(f"threads-{mode}.db", timeout=300, isolation_level=None)
    db = connect()
    print(db.execute(f"PRAGMA journal_mode = {mode}").fetchone())
    db.execute("CREATE TABLE t(who INTEGER, n INTEGER, text TEXT, UNIQUE (who, n))")
    failures = []
    def work(who):
        try:
            db = connect()
            for n in range(50):
                db.execute("BEGIN IMMEDIATE")
                db.execute("INSERT INTO t VALUES (?, ?, ?)", (who, n, "x" * (n * 37 % 3000)))
                db.execute("COMMIT" if n % 5 else "ROLLBACK")
                count, = db.execute("SELECT count(*) FROM t WHERE who = ?", (who,)).fetchone()
                assert count == n - n // 5, (who, n, count)
        except BaseException as failure:
            failures.append(failure)
    threads = [threading.Thread(target=work, args=(who,)) for who in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(failures, db.execute("PRAGMA integrity_check").fetchone())
    print(db.execute("SELECT who, count(*), sum(n), sum(length(text)) FROM t GROUP BY who").fetchall())
PYTHON
}

run_git() {
    git clone -q --no-local "$repository" clone
    cd clone
    git ls-files | wc -l
    git fsck --full --strict 2>&1 | grep -v dangling || true
    git config user.email me@example.org && git config user.name me
    for n in $(seq 3); do
        mkdir -p "made/$n"
        for file in $(seq 300); do echo "$n $file" >"made/$n/$file"; done
        git add -A
        GIT_AUTHOR_DATE="@$((1500000000 + n))" GIT_COMMITTER_DATE="@$((1500000000 + n))" git commit -q -m "commit $n"
    done
    git gc -q --prune=now
    git fsck --full --strict 2>&1 | grep -v dangling || true
    git status --porcelain
    git checkout -q HEAD~2 && git status --porcelain && git checkout -q -
    git rev-parse 'HEAD^{tree}' HEAD
    git repack -q -a -d -f && git fsck --full 2>&1 | grep -v dangling || true
    git worktree add -q ../worktree HEAD && git -C ../worktree status --porcelain
}

run_cargo() {
    cp -r "$crate"/. .
    export CARGO_TARGET_DIR=$PWD/target
    # What it is built from is on the disk as well.
    mkdir .cargo
    cargo vendor -q --offline >.cargo/config.toml 2>/dev/null
    (cd vendor && find . -type f -exec sha256sum {} + | sort | sha256sum)
    cargo run -q
    echo "// changed" >>src/main.rs
    cargo run -q
    cargo run -q --release
}

make_tree() {
    mkdir -p tree/{a,b/c,sticky,"odd name"}
    chmod 1777 tree/sticky
    for n in $(seq 200); do echo "content $n" >"tree/a/$n"; done
    ln tree/a/1 tree/b/hard && ln -s ../a/2 tree/b/soft && mkfifo tree/b/pipe && mknod tree/b/null c 1 3
    dd if=/dev/zero of=tree/sparse bs=1 count=1 seek=50M status=none
    printf 'x' >"tree/odd name/$(printf 'not \377 utf-8\n')"
    setfattr -n user.one -v 1 tree/a/1 && setfattr -n user.long -v "$(printf '%01000d' 7)" tree/a/2
    setfattr -n trusted.two -v 2 tree/b
    setfacl -m u:5:rwx,g:6:r tree/a/3 && setfacl -d -m u:5:rwx tree/b/c && touch tree/b/c/inherits
    chmod 6755 tree/a/4 && chown 12:34 tree/a/5
    touch -d '1950-01-01 00:00:00.123456789' tree/a/6 && touch -d '2200-01-01' tree/a/7
    find tree -depth ! -name '[67]' -exec touch -h -d '2020-02-02 02:02:02.020202020' {} +
}

# Everything of a tree but its change times.
describe() {
    # How large a directory is, is each filesystem's own business.
    (cd "$1" && find . ! -type d -printf '%p %y %m %U %G %n %s %T@ %l\n' -o -printf '%p %y %m %U %G %n %T@\n' | sort)
    (cd "$1" && find . -type f -exec sha256sum {} + | sort)
    (cd "$1" && getfacl -R -n -p . && getfattr -R -d -m - -h . 2>/dev/null) | sort
}

run_rsync() {
    make_tree
    rsync -aAXHS tree/ "$elsewhere/copy-$disk/"
    rsync -aAXHS "$elsewhere/copy-$disk/" back/
    rsync -naAXHSic --delete tree/ back/
    rsync -naAXHSic --delete tree/ "$elsewhere/copy-$disk/"
    # In place, over what is there.
    echo "and more" >>back/a/1
    rsync -aAXHS --inplace --delete tree/ back/
    describe back
}

run_tar() {
    make_tree
    mkdir out
    tar --xattrs --xattrs-include='*' --acls --sparse -C tree -cf tree.tar .
    tar --xattrs --xattrs-include='*' --acls -C out -xpf tree.tar
    tar --xattrs --acls -C out -df tree.tar
    describe out
}

run_postgres() {
    local logs=$elsewhere/server-$disk
    mkdir -p "$logs" && chown postgres "$logs" .
    as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }
    start() { as_postgres "$postgres/pg_ctl" -D "$PWD/data" -s -w -l "$logs/log" -o "-k $logs -h ''" start; }
    ask() { as_postgres psql -h "$logs" -qAt -c "$1" postgres; }
    as_postgres "$postgres/initdb" -D "$PWD/data" -A trust -E UTF8 --locale C --data-checksums >/dev/null
    start
    as_postgres "$postgres/pgbench" -h "$logs" -q -i -s 2 postgres >/dev/null 2>&1
    as_postgres "$postgres/pgbench" -h "$logs" -c 4 -T 6 postgres >"$logs/pgbench" 2>&1 &
    sleep 3
    # The server and all its children, with the benchmark under way.
    local server
    server=$(head -n 1 data/postmaster.pid)
    # shellcheck disable=SC2046 # several numbers
    kill -9 "$server" $(ps -o pid= --ppid "$server")
    wait || true
    # Where nobody reaps them, dead processes still look alive.
    rm -f data/postmaster.pid "$logs"/.s.PGSQL.*
    start
    ask "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history),
        (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(tbalance) FROM pgbench_tellers),
        (SELECT count(*) FROM pgbench_accounts), (SELECT count(*) > 10 FROM pgbench_history)"
    as_postgres "$postgres/pg_ctl" -D "$PWD/data" -s -m fast stop
    as_postgres "$postgres/pg_checksums" -D "$PWD/data" --check | grep 'Bad checksums'
}

run_lmdb() {
    /usr/bin/python3 - <<'PYTHON'
import hashlib, lmdb
for writemap in (False, True):
    path = f"db-{writemap}"
    with lmdb.open(path, map_size=64 << 20, writemap=writemap) as db:
        for batch in range(20):
            with db.begin(write=True) as change:
                for n in range(500):
                    change.put(f"{batch}-{n}".encode(), bytes([n % 256]) * (n % 300 + 1))
            with db.begin(write=True) as change:
                for n in range(0, 500, 3):
                    change.delete(f"{batch}-{n}".encode())
    with lmdb.open(path, readonly=True) as db, db.begin() as view:
        digest = hashlib.sha256()
        for key, value in view.cursor():
            digest.update(key + value)
        print(writemap, view.stat()["entries"], digest.hexdigest())
PYTHON
}

run_mailbox() {
    /usr/bin/python3 - <<'PYTHON'
import fcntl, mailbox, os
def deliver(who):
    for n in range(50):
        # Both kinds of lock, as delivery agents take them.
        with open("inbox", "ab") as box:
            fcntl.lockf(box, fcntl.LOCK_EX)
            fcntl.flock(box, fcntl.LOCK_EX)
            size = os.path.getsize("inbox")
            for part in (b"From me\n", b"From: %d\n" % who, b"Subject: %d\n\nHello\n\n" % n):
                box.write(part)
                box.flush()
            assert os.path.getsize("inbox") - size == box.tell() - size
children = []
for who in range(4):
    pid = os.fork()
    if pid == 0:
        deliver(who)
        os._exit(0)
    children.append(pid)
print([os.waitpid(pid, 0)[1] for pid in children])
print(sorted((message["From"], message["Subject"], message.get_payload()) for message in mailbox.mbox("inbox")))
PYTHON
}

run_editor() {
    echo "first" >document
    chmod 640 document && setfattr -n user.kept -v yes document
    for n in $(seq 50); do
        # As editors that make a copy and move it over do, and those that keep a backup.
        cp -p --preserve=all document .document.swp
        echo "line $n" >>.document.swp
        sync .document.swp
        mv -f document document~
        mv .document.swp document
        sed -i "s/line $n/changed $n/" document
    done
    sha256sum document document~
    stat -c '%a %s %h' document
    ls -A
}

elsewhere=$work/elsewhere
mkdir -p "$work"/{store,drive,local} "$elsewhere"
chmod 711 "$elsewhere"
repository=$elsewhere/repository
crate=$elsewhere/crate
mkdir "$crate"
(
    cd "$crate"
    cargo init -q --name crate_on_a_drive --vcs none
    cargo add -q serde_json@1
    echo 'fn main() { println!("{}", serde_json::json!({ "built": [1, 2, 3] })); }' >src/main.rs
    cargo fetch -q
)
"$hushfs" init "$work/store" --kdf-memory 64MiB >/dev/null
mount_as one
chmod 755 "$work/drive"

# Some 15,000 files of the kernel's, each of its parts a commit.
make_repository() {
    local tree=$elsewhere/tree part
    mkdir "$tree"
    tar -xf /usr/src/linux-source-6.1.tar.xz -C "$tree" --strip-components 1 --wildcards \
        'linux-source-6.1/'{fs,mm,kernel,net,sound,include,arch/x86}
    git init -q --bare "$repository"
    git() { command git --git-dir "$repository" --work-tree "$tree" -c user.name=me -c user.email=me@example.org "$@"; }
    for part in arch/x86 fs include kernel mm net sound; do
        git add "$part"
        git commit -q -m "$part"
    done
    unset -f git
    rm -rf "$tree"
}

declare -A took
failed=0
[ $# -gt 0 ] || set -- "${all[@]}"
for program in "$@"; do [ "$program" != git ] || make_repository; done
for program in "$@"; do
    ended=0
    for disk in local drive; do
        mkdir "$work/$disk/$program"
        start=$(date +%s%N)
        # Not within a condition, where the shell would go on after a failure inside.
        set +e
        (set -e; cd "$work/$disk/$program"; "run_$program") >"$elsewhere/$program-$disk" 2>"$elsewhere/$program-$disk.err"
        status=$?
        set -e
        took[$disk]=$((($(date +%s%N) - start) / 1000000))
        [ $status = 0 ] || { echo "$program on $disk: ended with $status" && tail -n 20 "$elsewhere/$program-$disk.err"; ended=$status; }
    done
    verdict=same
    diff -u "$elsewhere/$program-local" "$elsewhere/$program-drive" || verdict=DIFFERENT
    [ $ended = 0 ] || verdict=FAILED
    [ $verdict = same ] || failed=1
    printf '%-10s %-10s local %6d ms   drive %6d ms\n' "$program" "$verdict" "${took[local]}" "${took[drive]}"
done

sums() { (cd "$work/drive" && find . -type f -exec sha256sum {} + | sort); }
sums >"$elsewhere/before"
"$hushfs" umount "$work/drive"
mount_as another
sums >"$elsewhere/after"
cmp "$elsewhere/before" "$elsewhere/after" && echo "all $(wc -l <"$elsewhere/after") files are the same on another machine" || failed=1
"$hushfs" umount "$work/drive"
exit $failed
