#!/usr/bin/env bash
# What users get wrong: each case ends with its exit code and one line on standard error that says what, and leaves nothing half-written.
set -uo pipefail
dir=$(mktemp -d "${TMPDIR:-/tmp}/kac-bad-XXXXXX")
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
kac=$KAC_BINARY
n=0 bad=0

# refuses CODE TEXT ARGUMENTS…: exit code, exactly one line on stderr that holds TEXT, nothing on stdout, and no new file in $dir
refuses() {
    local code=$1 text=$2 before after got
    shift 2
    n=$((n + 1))
    before=$(find "$dir" | sort)
    timeout 60 "$kac" "$@" >"$dir.out" 2>"$dir.err" </dev/null
    got=$?
    after=$(find "$dir" | sort)
    if [ $got -ne "$code" ] || [ "$(wc -l <"$dir.err")" -ne 1 ] || ! grep -qiF -- "$text" "$dir.err" || [ -s "$dir.out" ] ||
        [ "$before" != "$after" ]; then
        bad=$((bad + 1))
        echo "kac $*" | cut -c1-200
        echo "  exit code $got, wanted $code and one line with \"$text\"; it said:"
        head -5 "$dir.err" | cut -c1-300 | sed 's/^/  /'
        [ -s "$dir.out" ] && echo "  and printed: $(head -c 200 "$dir.out")"
        [ "$before" != "$after" ] && echo "  and left: $(diff <(echo "$before") <(echo "$after") | grep '^>')"
    fi
    rm -f "$dir.out" "$dir.err"
}
small=(--steer none --particles 1 --steps 1)

# commands and options
refuses 2 "which command"
refuses 2 "did you mean generate?" generat
refuses 2 "kac --help" xyzzy
refuses 2 "did you mean --steps?" generate x --step 3
refuses 2 "unknown option -Q" generate x -Q
refuses 2 "needs a value" generate x --steps
refuses 2 "steps" generate x --steps many
refuses 2 "steps" generate x --steps 3x
refuses 2 "steps" generate x --steps ""
refuses 2 "steps" generate x --steps 0
refuses 2 "steps" generate x --steps -5
refuses 2 "steps" generate x --steps 99999999999999999999
refuses 2 "seed" generate x --seed -1
refuses 2 "cfg-scale" generate x --cfg-scale nan
refuses 2 "cfg-scale" generate x --cfg-scale 1e999
refuses 2 "eta" generate x --eta 2
refuses 2 "did you mean fk?" generate x --steer fkk
refuses 2 "an option of --steer best-of-n|fk|dps|tds|das|is|svdd" generate x --steer none --lambda 2
refuses 2 "sampling-method" generate x --sampling-method ddmi
refuses 2 "ddim with --eta 1" generate x --eta 0 -o "$dir/run"
refuses 2 "heun draws none" generate x --sampling-method heun -o "$dir/run"
refuses 2 "best-of-n" generate x --sampling-method model -o "$dir/run"
refuses 1 "flow models" generate x --sampling-method flow-heun "${small[@]}" -o "$dir/run"
refuses 2 "eta" generate x --sampling-method dpm++2m-sde --eta 1 "${small[@]}" -o "$dir/run"
refuses 2 "potential" generate x --potential biggest
refuses 2 "resampling" generate x --resampling mulitnomial
refuses 2 "ess-threshold" generate x --ess-threshold 1.5
refuses 2 "dtype" generate x --dtype f64
refuses 2 "no scale" generate x --lora style:strong
refuses 1 "there is no file style" generate x --lora style:0.5
refuses 1 "SDXL" generate x --lora tests/golden/lora/files/kohya_xl.safetensors "${small[@]}" -o "$dir/run"
refuses 1 "24 wide" generate x --embedding tests/golden/inversion/files/a1111.pt "${small[@]}" -o "$dir/run"
refuses 1 "holds no LoRA" generate x --lora tests/golden/lora/adapter.safetensors "${small[@]}" -o "$dir/run"
refuses 2 "did you mean" generate x --reward clp "${small[@]}" -o "$dir/run"
refuses 2 "reward" generate x --reward jpeg:0 "${small[@]}" -o "$dir/run"
refuses 1 "$dir/nowhere" generate x --reward "clip=$dir/nowhere" "${small[@]}" -o "$dir/run"
refuses 2 "original-size" generate x --original-size 1024 "${small[@]}" -o "$dir/run"
refuses 2 "WIDTHxHEIGHT" generate x --target-size 0x64 "${small[@]}" -o "$dir/run"
refuses 2 "LEFT,TOP" generate x --negative-crop-top-left 3x4 "${small[@]}" -o "$dir/run"
refuses 2 "one word too many" report a b
refuses 2 "usage" report
refuses 2 "did you mean vae.decode?" run vae.decod --model x --in y --out z
refuses 2 "needs --in" run unet --model weights/shapes-64

# prompts
refuses 2 "empty" generate "" "${small[@]}" -o "$dir/run"
refuses 2 "empty" generate "   " "${small[@]}" -o "$dir/run"
refuses 2 "say what to make" generate "${small[@]}" -o "$dir/run"
refuses 2 "UTF-8" generate $'a \xff circle' "${small[@]}" -o "$dir/run"
refuses 2 "UTF-8" generate $'a \xed\xa0\x80 circle' "${small[@]}" -o "$dir/run"
refuses 1 "$dir/none.txt" generate --prompts-file "$dir/none.txt" "${small[@]}" -o "$dir/run"

# sizes and counts
refuses 2 "width" generate x -W 0 -o "$dir/run"
refuses 2 "width" generate x -W 100000 -o "$dir/run"
refuses 2 "multiple" generate x -W 65 "${small[@]}" -o "$dir/run"
refuses 2 "multiple" generate x -H 99 -W 64 "${small[@]}" -o "$dir/run"
refuses 2 "particles" generate x --particles 0 -o "$dir/run"
refuses 2 "particles" generate x --particles 1000000000 -o "$dir/run"
refuses 2 "particles" generate x --particles -1 -o "$dir/run"
refuses 2 "--nfe 24 is not enough for one particle" generate x --nfe 24 -o "$dir/run"
refuses 2 "each with a gradient" generate x --steer das --nfe 49 -o "$dir/run"
refuses 2 "--particles cannot be given beside it" generate x --nfe 100 --particles 4 -o "$dir/run"
refuses 2 "--time is for methods that can stop" generate x --time 3 -o "$dir/run"
refuses 2 "nfe" generate x --nfe 0 -o "$dir/run"
refuses 1 "this run needs" generate x --particles 1000000 --batch-size 1000000 -W 4096 -H 4096 -o "$dir/run"
refuses 1 "this run needs" generate x --memory-limit 0.001 "${small[@]}" -o "$dir/run"

# models
refuses 1 "$dir/nowhere" generate x --model "$dir/nowhere" "${small[@]}" -o "$dir/run"
cp -r weights/shapes-64 "$dir/model"
for part in unet vae text_encoder scheduler tokenizer; do
    mv "$dir/model/$part" "$dir/away"
    refuses 1 "$part" generate x --model "$dir/model" --reward jpeg "${small[@]}" -o "$dir/run"
    mv "$dir/away" "$dir/model/$part"
done
cp "$dir/model/unet/config.json" "$dir/kept.json"
sed 's/"in_channels": 4/"in_channels": "four"/' "$dir/kept.json" >"$dir/model/unet/config.json"
refuses 1 "in_channels" generate x --model "$dir/model" --reward jpeg "${small[@]}" -o "$dir/run"
printf '{"_class_name": "UNet2DConditionModel", ' >"$dir/model/unet/config.json"
refuses 1 "JSON" generate x --model "$dir/model" --reward jpeg "${small[@]}" -o "$dir/run"
cp "$dir/kept.json" "$dir/model/unet/config.json"
head -c 100000 weights/shapes-64/unet/diffusion_pytorch_model.safetensors >"$dir/model/unet/diffusion_pytorch_model.safetensors"
refuses 1 "diffusion_pytorch_model.safetensors" generate x --model "$dir/model" --reward jpeg "${small[@]}" -o "$dir/run"
refuses 1 "neither" info "$dir"
refuses 1 "no such" info "$dir/nowhere"
printf 'PK\3\4 not a picture' >"$dir/zip"
refuses 1 "zip" info "$dir/zip"
printf '\x89PNG\r\n\x1a\n' >"$dir/cut.png"
refuses 1 "cut.png" info "$dir/cut.png"
refuses 1 "cut.png" score "$dir/cut.png" --prompt x --reward jpeg
refuses 1 "nowhere.png" score "$dir/nowhere.png" --prompt x --reward jpeg
refuses 2 "--prompt" score tests/report/fixture/group_00_particle_00.png
refuses 1 "no run folder" report "$dir"

# config files
printf '{"stepz": 3}' >"$dir/config.json"
refuses 2 "did you mean" generate x --config "$dir/config.json"
printf '{"steps": [1, {}]}' >"$dir/config.json"
refuses 2 "steps" generate x --config "$dir/config.json"
printf '{"steps": 3' >"$dir/config.json"
refuses 1 "JSON" generate x --config "$dir/config.json"
refuses 1 "nowhere.json" generate x --config "$dir/nowhere.json"

# outputs
mkfifo "$dir/fifo"
refuses 1 "$dir/fifo" generate x "${small[@]}" -o "$dir/fifo"
refuses 1 "$dir/zip" generate x "${small[@]}" -o "$dir/zip"
printf '{"sample":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}%4s' >"$dir/body"
{ printf "\\x$(printf %x $(($(wc -c <"$dir/body") - 4)))\\0\\0\\0\\0\\0\\0\\0" && cat "$dir/body"; } >"$dir/in.safetensors"
refuses 1 "$dir/fifo" run scheduler --config weights/shapes-64/scheduler/scheduler_config.json --in "$dir/in.safetensors" --out "$dir/fifo"
"$kac" run scheduler --config weights/shapes-64/scheduler/scheduler_config.json --in "$dir/in.safetensors" --out "$dir/out.safetensors" ||
    { echo "the same with a plain output fails" && bad=$((bad + 1)); }
test -p "$dir/fifo" || { echo "the FIFO was replaced" && bad=$((bad + 1)); }
refuses 2 "holds no run" generate --resume -o "$dir/nowhere"
refuses 2 "-o" generate --resume
mkdir "$dir/locked" && chmod a-w "$dir/locked"
if [ "$(id -u)" -ne 0 ]; then refuses 1 "locked" generate x "${small[@]}" -o "$dir/locked/run"; fi
refuses 1 "/proc" generate x "${small[@]}" -o /proc/self/kac-run

echo "$n cases, $bad failed"
[ "$bad" -eq 0 ]
