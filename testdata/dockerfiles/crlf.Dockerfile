from base
run echo a \
  b
copy . .
