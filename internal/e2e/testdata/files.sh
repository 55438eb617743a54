#!/bin/bash
# files.sh ROOT STOP: what people do to lock files in a shell, to the locks that the
# test's other clients use, until the file STOP exists. What it moves out of ROOT lies
# beside STOP for a while. It prints how often it did what.
root=$1
stop=$2
declare -A did

file() {
	local number=$((RANDOM % 50))
	echo "$root/dir$((number % 3))/sub/lock-$number.lock"
}

do_one() {
	local file
	file=$(file)
	case $1 in
	touch) touch "$file" ;;
	rm) rm -f "$file" ;;
	write) printf 'msg: written by hand\nn: %d\n' $RANDOM >"$file" ;;
	same) printf 'msg: written by hand\nn: %d\n' $((RANDOM % 10)) >"$file" ;;
	append) echo "more: $RANDOM" >>"$file" ;;
	vi) printf 'msg: edited\nn: %d\n' $RANDOM >"$file.swp" && mv "$file.swp" "$file" ;;
	replace) mv -f "$(file)" "$file" ;;
	link) ln "$(file)" "$file" ;;
	bad) echo '{ no: yaml' >"$file" ;;
	out) mv "$root/dir2" "$stop-$RANDOM" ;;
	in) mv "$stop"-* "$root" ;;
	aside) mv "$root/dir0" "$root/aside-$RANDOM" ;;
	gone) rm -rf "$root/dir1/sub" "$root"/aside-* "$root"/stop-* ;;
	esac
}

kinds=(touch touch rm rm rm write write same append vi replace link bad)
while [ ! -e "$stop" ]; do
	kind=${kinds[RANDOM % ${#kinds[@]}]}
	case $((RANDOM % 200)) in # whole directories
	0) kind=out ;;
	1) kind=in ;;
	2) kind=aside ;;
	3 | 4 | 5) kind=gone ;;
	esac
	do_one "$kind" 2>/dev/null && did[$kind]=$((did[$kind] + 1))
	mkdir -p "$root"/dir{0,1,2}/sub 2>/dev/null
done
rm -f "$root"/dir?/sub/*.swp
for kind in "${!did[@]}"; do
	printf '%s %d, ' "$kind" "${did[$kind]}"
done
echo
