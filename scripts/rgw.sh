#!/usr/bin/env bash
# One-node Ceph RGW, a real S3 server, on loopback and in memory: for tests.
#
#   scripts/rgw.sh up DIR PORT    install it if it is missing, start it, make the user and the bucket `hushfs`
#   scripts/rgw.sh down DIR       stop it by the pids in DIR/run, whatever state it was left in
#
# Access key and secret key are both `testtest`. All objects are lost at `down`. `up` on a DIR that was not
# brought down stops what still runs there first; nothing outside DIR is touched, no other process is killed.
set -euo pipefail

usage() { sed -n '2,8p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; }
die() { echo "rgw.sh: $*" >&2; exit 1; }

key=testtest
bucket=hushfs

install_missing() {
    local need=() tool
    for tool in ceph-mon:ceph-mon ceph-osd:ceph-osd radosgw:radosgw ceph:ceph-common curl:curl; do
        command -v "${tool%%:*}" >/dev/null || need+=("${tool##*:}")
    done
    ((${#need[@]} == 0)) && return
    command -v apt-get >/dev/null || die "missing: ${need[*]}; install them by hand"
    local as_root=()
    ((EUID == 0)) || as_root=(sudo)
    echo "rgw.sh: installing ${need[*]}" >&2
    # Debian would start daemons of its own, which are not wanted: only the programs are.
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
}

# Only a process that runs one of ours and names our configuration is ours: a pid may have been reused.
is_ours() {
    local pid=$1 conf=$2 exe
    [[ -r /proc/$pid/cmdline ]] || return 1
    exe=$(tr '\0' '\n' <"/proc/$pid/cmdline" | head -1)
    case ${exe##*/} in ceph-mon | ceph-osd | radosgw) ;; *) return 1 ;; esac
    tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF -- "$conf"
}

down() {
    local dir=$1 file pid waited
    [[ -d $dir/run ]] || return 0
    # The gateway first, then what it talks to.
    for file in "$dir"/run/client.rgw.pid "$dir"/run/osd.0.pid "$dir"/run/mon.a.pid; do
        [[ -s $file ]] || continue
        pid=$(<"$file")
        if is_ours "$pid" "$dir/ceph.conf"; then
            kill "$pid" 2>/dev/null || true
            for ((waited = 0; waited < 50; waited++)); do
                is_ours "$pid" "$dir/ceph.conf" || break
                sleep 0.1
            done
            # Nothing is kept, so nothing is lost by not waiting longer.
            if is_ours "$pid" "$dir/ceph.conf"; then kill -9 "$pid" 2>/dev/null || true; fi
        fi
        rm -f "$file"
    done
}

configure() {
    local dir=$1 port=$2 mon_port=$3 fsid=$4
    cat >"$dir/ceph.conf" <<CONF
[global]
fsid = $fsid
mon host = v1:127.0.0.1:$mon_port
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
ms bind ipv4 = true
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
run dir = $dir/run
admin socket = $dir/run/\$cluster-\$name.asok
log file = $dir/log/\$name.log
pid file = $dir/run/\$name.pid
[mon]
mon data = $dir/mon
mon osd full ratio = .99
mon data avail crit = 1
mon data avail warn = 1
[osd]
osd data = $dir/osd
osd objectstore = memstore
# A starting OSD may ask the monitor for these before it knows the cluster's id, and dies of the answer.
osd class update on start = false
osd crush update on start = false
memstore device bytes = 4294967296
osd memory target = 1073741824
osd class dir = /usr/lib/$(uname -m)-linux-gnu/rados-classes
debug osd = 0
debug ms = 0
[client.rgw]
rgw data = $dir/rgw
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw enable usage log = false
rgw enable ops log = false
rgw thread pool size = 64
rgw max chunk size = 4194304
rgw lc debug interval = -1
debug rgw = 0
debug ms = 0
CONF
}

# A monitor that has just started may refuse whoever comes before it is ready. Whatever is asked here can be asked again.
ask() {
    local tries
    for ((tries = 0; tries < 10; tries++)); do
        if timeout 30 ceph -c "$dir/ceph.conf" "$@" >>"$dir/log/start.log" 2>&1; then return 0; fi
        sleep 1
    done
    tail -3 "$dir/log/start.log" >&2
    return 1
}

# A signed empty PUT: curl knows the signature.
make_bucket() {
    local port=$1
    curl -sS --fail-with-body -o /dev/null -X PUT --aws-sigv4 "aws:amz:us-east-1:s3" --user "$key:$key" \
        -H "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" \
        "http://127.0.0.1:$port/$bucket"
}

up() {
    local dir=$1 port=$2 fsid osd_id mon_port tries
    [[ $port =~ ^[0-9]+$ ]] && ((port > 1024 && port < 60000)) || die "not a port: $port"
    install_missing
    down "$dir"
    rm -rf "$dir"/{mon,osd,rgw,run,log,monmap,ceph.conf}
    mkdir -p "$dir"/{mon,osd,rgw,run,log}
    curl -s -o /dev/null "http://127.0.0.1:$port" && die "something already answers on port $port"
    # Its own monitor port, so that two of these can run side by side.
    mon_port=$((port < 50000 ? port + 10000 : port - 10000))
    fsid=$(</proc/sys/kernel/random/uuid)
    osd_id=$(</proc/sys/kernel/random/uuid)
    configure "$dir" "$port" "$mon_port" "$fsid"
    trap 'echo "rgw.sh: failed; logs are in '"$dir"'/log" >&2; down "'"$dir"'"' ERR
    local conf=(-c "$dir/ceph.conf")
    monmaptool --create --clobber --fsid "$fsid" --addv a "[v1:127.0.0.1:$mon_port]" "$dir/monmap" >/dev/null
    ceph-mon "${conf[@]}" --mkfs -i a --monmap "$dir/monmap"
    ceph-mon "${conf[@]}" -i a
    ask mon stat
    ask osd new "$osd_id"
    # They write much that is no error; their logs have it too.
    ceph-osd "${conf[@]}" -i 0 --mkfs --osd-uuid "$osd_id" >>"$dir/log/start.log" 2>&1
    ask osd crush add osd.0 1 root=default host=h
    ceph-osd "${conf[@]}" -i 0 >>"$dir/log/start.log" 2>&1
    for ((tries = 0; tries < 60; tries++)); do
        ceph "${conf[@]}" osd stat 2>/dev/null | grep -q ' 1 up' && break
        sleep 0.5
    done
    radosgw "${conf[@]}" -n client.rgw
    for ((tries = 0; tries < 240; tries++)); do
        curl -s -o /dev/null "http://127.0.0.1:$port" && break
        sleep 0.5
    done
    timeout 60 radosgw-admin "${conf[@]}" -n client.rgw user create --uid="$key" --display-name="$key" \
        --access-key="$key" --secret-key="$key" >>"$dir/log/start.log" 2>&1
    make_bucket "$port"
    echo "http://127.0.0.1:$port"
}

case "${1:-}" in
    up) (($# == 3)) || usage; mkdir -p "$2"; up "$(cd "$2" && pwd)" "$3" ;;
    down) (($# == 2)) || usage; [[ -d $2 ]] || exit 0; down "$(cd "$2" && pwd)" ;;
    *) usage ;;
esac
