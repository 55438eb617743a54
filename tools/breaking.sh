#!/usr/bin/env bash
# Compares proto/ as it stands with the contract before: that of the last commit
# on main, or, when nothing in proto/ has changed since, that of the commit before
# the last change. So the check bites in a working tree, on a branch, and in CI on
# main itself. It needs no branch (detached checkout) and no history (shallow
# clone), and says so when there is nothing to compare with.
set -euo pipefail
cd "$(dirname "$0")/.."

pass() {
	echo "breaking: $1; nothing to compare with."
	exit 0
}

[ -e .git ] || pass "this is no git checkout"
git rev-parse --git-dir >/dev/null # a broken checkout is an error, not a pass

for base in refs/heads/main refs/remotes/origin/main HEAD none; do
	! commit=$(git rev-parse --verify --quiet "$base^{commit}") || break
done
[ "$base" != none ] || pass "there is no commit yet"
git cat-file -e "$commit:proto" 2>/dev/null || pass "$base ($(git rev-parse --short "$commit")) has no proto/"

if git diff --quiet "$commit" -- proto; then
	commit=$(git rev-list -1 "$commit" -- proto)
	previous=$(git rev-parse --verify --quiet "$commit^") || pass "history begins with the proto/ of $(git rev-parse --short "$commit")"
	git cat-file -e "$previous:proto" 2>/dev/null || pass "$(git rev-parse --short "$commit") is the first commit with proto/"
	commit=$previous
fi

git archive --format=tar "$commit" | .tools/buf breaking --against '-#format=tar'
echo "breaking: compatible with $(git rev-parse --short "$commit")."
