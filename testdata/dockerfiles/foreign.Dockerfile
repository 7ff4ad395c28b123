# syntax=example.com/other:1
FROM base
