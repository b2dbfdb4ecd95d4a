#!/bin/sh
# Run an S3 server on one machine: Ceph's monitor, one object store and the RADOS gateway, from Ceph's official image.
# Its user has the keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Data is in $STORAGE_DATA, in a single copy, so use
# it for trials only. Daemons communicate on 127.0.0.1; only the gateway accepts external connections.
set -eu
data=${STORAGE_DATA:-/data}
port=${STORAGE_PORT:-9000}
conf=$data/ceph.conf

if [ ! -e "$data/made" ]; then
  rm -rf "${data:?}"/*
  mkdir -p "$data/mon" "$data/osd" "$data/rgw"
  fsid=$(cat /proc/sys/kernel/random/uuid)
  cat > "$conf" <<END
[global]
fsid = $fsid
keyring = $data/keyring
mon host = v2:127.0.0.1:${STORAGE_MONITOR_PORT:-3300}
mon initial members = a
public addr = 127.0.0.1
ms bind msgr1 = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 1
osd objectstore = ${STORAGE_KIND:-bluestore}
bluestore block size = 10737418240
osd memory target = 939524096
memstore device bytes = 4294967296
run dir = $data
admin socket = $data/\$name.asok
log file = $data/\$name.log

[mon.a]
mon data = $data/mon

[osd.0]
osd data = $data/osd

[client.rgw]
rgw data = $data/rgw
rgw frontends = beast endpoint=${STORAGE_LISTEN:-0.0.0.0}:$port
rgw s3 auth use sts = true
rgw sts key = ${STORAGE_STS_KEY:-abcdefghijklmnop}
END
  ceph-authtool --create-keyring "$data/keyring" --gen-key -n mon. --cap mon 'allow *'
  ceph-authtool "$data/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
  ceph-authtool "$data/keyring" --gen-key -n client.rgw --cap mon 'allow *' --cap osd 'allow *'
  ceph-authtool "$data/keyring" --gen-key -n osd.0 --cap mon 'allow *' --cap osd 'allow *'
  monmaptool --create --addv a "[v2:127.0.0.1:${STORAGE_MONITOR_PORT:-3300}]" --fsid "$fsid" "$data/monmap"
  ceph-mon -c "$conf" -i a --mkfs --monmap "$data/monmap" --keyring "$data/keyring"
fi

ceph-mon -c "$conf" -i a -f &
if [ ! -e "$data/made" ]; then
  id=$(cat /proc/sys/kernel/random/uuid)
  timeout 120 ceph -c "$conf" osd new "$id" 0
  ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$id"
fi
ceph-osd -c "$conf" -i 0 -f &
if [ ! -e "$data/made" ]; then
  timeout 300 radosgw-admin -c "$conf" -n client.rgw user create --uid=featray --display-name=featray \
    --access-key="$AWS_ACCESS_KEY_ID" --secret="$AWS_SECRET_ACCESS_KEY" --caps='user-policy=*' > "$data/user"
  [ "${STORAGE_KIND:-bluestore}" = memstore ] || touch "$data/made"
fi
exec radosgw -c "$conf" -n client.rgw -f
