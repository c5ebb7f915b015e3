# Sourced by bash: which httpd is meant, and how to load its modules.
#
# Sets $httpd, the server's binary, and $libexecdir, where its modules are. APXS chooses among several installations.
# shellcheck shell=bash

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# The first of the named programs that PATH has.
first_program() {
    local name
    for name in "$@"; do
        command -v "$name" && return
    done
    return 1
}

apxs=${APXS:-$(first_program apxs apxs2)} || {
    echo "apxs not found: install httpd's development files (Debian: apache2-dev; Fedora: httpd-devel), or set APXS." >&2
    exit 1
}
libexecdir=$("$apxs" -q LIBEXECDIR)
httpd=$("$apxs" -q SBINDIR)/$("$apxs" -q PROGNAME)
[ -x "$httpd" ] || httpd=$(first_program apache2 httpd) || {
    echo "httpd not found: install it (Debian: apache2; Fedora: httpd)." >&2
    exit 1
}

# load_modules NAME…: LoadModule lines for those of the modules that are not compiled into httpd. (A compiled-in MPM
# is listed by its bare name, and there is only one.)
load_modules() {
    local built_in name
    built_in=$("$httpd" -l)
    for name in "$@"; do
        case $name in
            mpm_*) grep -qxE ' *(event|worker|prefork)\.c' <<<"$built_in" && continue ;;
            *) grep -qxE " *mod_$name\.c" <<<"$built_in" && continue ;;
        esac
        echo "LoadModule ${name}_module \"$libexecdir/mod_$name.so\""
    done
}
