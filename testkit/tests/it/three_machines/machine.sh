# A machine of the test: the root of this one with a layer of its own above it, which goes with the
# machine. Runs in namespaces of its own (mount, pid, and perhaps network).
# usage: machine.sh FOLDER STAND_IN
set -eu
mount -t tmpfs -o size=2g tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
# What an init would have made, and what says that there is one.
mkdir -p run/systemd/system run/lock
chmod 1777 tmp
for name in systemctl journalctl; do
    mv "usr/bin/$name" "usr/bin/$name.real"
    install --mode=0755 "$2" "usr/bin/$name"
done
# Some machines without an init forbid packages to start anything.
rm -f usr/sbin/policy-rc.d
exec chroot . sh -c 'echo the machine is up; exec sleep infinity'
