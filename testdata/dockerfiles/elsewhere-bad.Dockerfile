FROM scratch
COPY https://example.com/a /
COPY git@example.com:a /
ADD https://example.com/repo.git?tag=a#b /
ADD --checksum=md5:00 https://example.com/a /
ADD --checksum=xyz https://example.com/a.git /
ADD --checksum=sha256:00 a /
ADD --checksum=sha256:00 https://a/b https://a/c /
ADD --keep-git-dir=false https://example.com/repo.git?keep-git-dir=true /
