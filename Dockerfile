# mod_websocket in a container: docs/container.md says how to run it.
#
#   docker build -t mod_websocket .                     on Debian's apache2 (the target apache2)
#   docker build -t mod_websocket --target httpd .      on the official image httpd, below /usr/local/apache2
#
# Secrets, for a network that needs them: ca, the certificates to trust; cargo, a configuration of cargo.

# A Debian 13, whose backports have a rustc that is new enough, and an image of httpd that is made of the same Debian.
ARG BASE=debian:trixie-slim
ARG HTTPD=httpd:2.4

# The directory is apache2's own: into it `make install` puts what a2enmod enables.
FROM ${BASE} AS build
RUN sed -i 's/^Suites: trixie trixie-updates$/& trixie-backports/' /etc/apt/sources.list.d/debian.sources \
    && apt-get update \
    && apt-get install -y --no-install-recommends --target-release trixie-backports cargo rustc \
    && apt-get install -y --no-install-recommends apache2-dev ca-certificates gcc libc6-dev libclang-dev make \
    && mkdir -p /etc/apache2/mods-available
WORKDIR /src
COPY . .
RUN --mount=type=secret,id=ca \
    --mount=type=secret,id=cargo,target=/root/.cargo/config.toml \
    if [ -e /run/secrets/ca ]; then export CARGO_HTTP_CAINFO=/run/secrets/ca; fi \
    && cargo build --release --locked \
    && strip --strip-unneeded target/release/libmod_websocket.so \
    && make install DESTDIR=/out \
    && rm -rf target /root/.cargo/registry


FROM ${HTTPD} AS httpd
COPY --from=build /out/usr/lib/apache2/modules/mod_websocket.so modules/
COPY apache-conf/websocket.conf apache-conf/container/container.conf conf/extra/
COPY apache-conf/container/websocket-healthcheck /usr/local/bin/
RUN sed -i 's/^Listen 80$/Listen 8080/' conf/httpd.conf \
    && printf '%s\n' '' '# mod_websocket' 'LoadModule websocket_module modules/mod_websocket.so' \
        'Include conf/extra/websocket.conf' 'Include conf/extra/container.conf' >>conf/httpd.conf \
    && chmod 1777 logs \
    && httpd -t
USER www-data
EXPOSE 8080
STOPSIGNAL SIGWINCH
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["websocket-healthcheck"]
CMD ["httpd", "-D", "FOREGROUND"]


FROM ${BASE} AS apache2
RUN apt-get update \
    && apt-get install -y --no-install-recommends apache2 ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# What /etc/apache2/envvars sets. httpd writes to one directory alone, /run/apache2, whoever runs it.
ENV APACHE_RUN_USER=www-data \
    APACHE_RUN_GROUP=www-data \
    APACHE_RUN_DIR=/run/apache2 \
    APACHE_LOCK_DIR=/run/apache2 \
    APACHE_PID_FILE=/run/apache2/apache2.pid \
    APACHE_LOG_DIR=/var/log/apache2 \
    LANG=C
COPY --from=build /out/ /
COPY apache-conf/container/container.conf /etc/apache2/conf-available/
COPY apache-conf/container/websocket-healthcheck /usr/local/bin/
RUN sed -i 's/^\(\s*Listen\) 80$/\1 8080/; s/^\(\s*Listen\) 443$/\1 8443/' /etc/apache2/ports.conf \
    && sed -i 's/^<VirtualHost \*:80>/<VirtualHost *:8080>/' /etc/apache2/sites-available/000-default.conf \
    && sed -i 's/^\(\s*<VirtualHost .*\):443>/\1:8443>/' /etc/apache2/sites-available/default-ssl.conf \
    && a2enmod --quiet websocket \
    && a2enconf --quiet container \
    && chmod 0755 /var/log/apache2 \
    && ln -sf /dev/stderr /var/log/apache2/error.log \
    && ln -sf /dev/stdout /var/log/apache2/access.log \
    && ln -sf /dev/stdout /var/log/apache2/other_vhosts_access.log \
    && install -d -m 1777 /run/apache2 \
    && apache2 -t
USER www-data
EXPOSE 8080 8443
# A graceful stop: requests that run are finished, then the clients get their Close.
STOPSIGNAL SIGWINCH
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["websocket-healthcheck"]
CMD ["apache2", "-D", "FOREGROUND"]
