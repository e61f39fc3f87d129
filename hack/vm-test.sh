#!/usr/bin/env bash
# A cluster where PID 1 is systemd and cgroups are v2: a Debian virtual machine raises one, loses daemons, reboots and
# takes it down. vm-test.sh BIN-FOLDER; the image is kept below target/vm.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(realpath "$1") vm=target/vm
[ "$(id -u)" -eq 0 ] || { echo "error: debootstrap needs root" >&2; exit 1; }
hack/install-deps.sh vm
packages=systemd,systemd-sysv,dbus,udev,linux-image-cloud-amd64,containerd,runc,containernetworking-plugins,nftables,iproute2,conntrack,curl
if [ ! -e "$vm/ready" ]; then
  rm -rf "$vm" && mkdir -p "$vm"
  debootstrap --variant=minbase --include=$packages bookworm "$vm/root" >"$vm/debootstrap.log"
  touch "$vm/ready"
fi
root=$vm/root
install -d "$root/opt/keelson/manifests"
install -m 755 "$bin"/{ctl,keelson-{api-server,scheduler,controller-manager,node-agent,net-proxy,dns,pause,hello}} "$root/opt/keelson/"
cp -r manifests/demo "$root/opt/keelson/manifests/"
install -m 755 hack/vm-guest.sh "$root/opt/keelson/vm-guest.sh"
install -d "$root/etc/systemd/network"
printf '[Match]\nName=en* eth*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n' >"$root/etc/systemd/network/lan.network"
cat >"$root/etc/systemd/system/vm-guest.service" <<'UNIT'
[Unit]
Wants=network-online.target
After=network-online.target multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/opt/keelson/vm-guest.sh
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=600
UNIT
for unit in systemd-networkd.service systemd-networkd-wait-online.service; do
  systemctl --root="$root" enable --quiet $unit
done
install -d "$root/etc/systemd/system/graphical.target.wants"
ln -sf ../vm-guest.service "$root/etc/systemd/system/graphical.target.wants/vm-guest.service"
systemctl --root="$root" set-default --quiet graphical.target
systemctl --root="$root" mask --quiet containerd.service serial-getty@ttyS0.service
rm -f "$vm/disk"
mke2fs -q -t ext4 -d "$root" "$vm/disk" 4G
timeout 900 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -nographic -no-reboot \
  -kernel "$(ls "$root"/boot/vmlinuz-*)" -initrd "$(ls "$root"/boot/initrd.img-*)" \
  -append "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=false panic=-1" \
  -drive file="$vm/disk",format=raw,if=virtio -nic user,restrict=on,model=virtio </dev/null | tee "$vm/console.log"
grep -q 'VM TEST PASSED' "$vm/console.log"
