# bash completion of kac, written by `kac completion bash`
_kac() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="generate tune bench score report info convert run help --help --version"
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
        return
    fi
    case "${COMP_WORDS[1]} $prev" in
    "generate --prediction") words="epsilon v_prediction" ;;
    "generate --init-latents") words="sample mean" ;;
    "generate --sampling-method") words="auto model ddim ddpm pndm lms euler euler-ancestral heun dpm2 dpm2-ancestral dpm++2m dpm++2m-sde dpm++2s dpm++2s-sde deis unipc lcm tcd flow-euler flow-euler-sde flow-heun" ;;
    "generate --scheduler") words="default karras exponential beta lu" ;;
    "generate --steer") words="none best-of-n fk dps tds das is svdd code dsearch rbf dts dts-star noise-random noise-zero-order noise-paths reno psi demon " ;;
    "generate --dtype") words="f32 bf16" ;;
    "generate --backend") words="cpu ref onednn" ;;
    "generate --potential") words="difference max sum reward" ;;
    "generate --resampling") words="multinomial stratified systematic residual ssp" ;;
    "generate --gradient-form") words="score variance residual direction" ;;
    "generate --preset") words="paper launch repository" ;;
    "generate --gradient-form") words="score variance residual direction" ;;
    "generate --gradient-form") words="score variance residual direction" ;;
    "generate --resampling") words="multinomial stratified systematic residual ssp" ;;
    "generate --preset") words="paper" ;;
    "generate --gradient-form") words="score variance residual direction" ;;
    "generate --resampling") words="multinomial stratified systematic residual ssp" ;;
    "generate --tempering") words="exponential linear none" ;;
    "generate --preset") words="aesthetic clip pickscore" ;;
    "generate --gradient-form") words="score variance residual direction" ;;
    "generate --choice") words="draw best" ;;
    "generate --preset") words="paper code" ;;
    "generate --choice") words="best draw" ;;
    "generate --preset") words="paper" ;;
    "generate --search") words="all uniform linear exponential" ;;
    "generate --drop") words="none exponential linear quadratic sigmoid" ;;
    "generate --preset") words="paper replace" ;;
    "generate --preset") words="paper" ;;
    "generate --build") words="boltzmann tempered uniform" ;;
    "generate --estimate") words="paths tree" ;;
    "generate --preset") words="paper" ;;
    "generate --backup") words="soft max" ;;
    "generate --final") words="best path" ;;
    "generate --preset") words="paper" ;;
    "generate --metric") words="cosine euclidean" ;;
    "generate --preset") words="paper tt-scale-flux" ;;
    "generate --preset") words="paper" ;;
    "generate --preset") words="paper hypersd" ;;
    "generate --gradient-form") words="score variance residual direction" ;;
    "generate --resampling") words="multinomial stratified systematic residual ssp" ;;
    "generate --preset") words="aesthetic layout" ;;
    "generate --weights") words="tanh softmax reward" ;;
    "generate --preset") words="paper" ;;
    "tune --method") words="alignprop draft-k draft-lv refl drtune ddpo raft dpo-online nft " ;;
    "tune --balance") words="plain norm" ;;
    "tune --lora-format") words="kohya peft" ;;
    "tune --train") words="lora full" ;;
    "tune --init") words="kaiming gaussian" ;;
    "tune --prediction") words="epsilon v_prediction" ;;
    "tune --sampling-method") words="auto model ddim ddpm pndm lms euler euler-ancestral heun dpm2 dpm2-ancestral dpm++2m dpm++2m-sde dpm++2s dpm++2s-sde deis unipc lcm tcd flow-euler flow-euler-sde flow-heun" ;;
    "tune --scheduler") words="default karras exponential beta lu" ;;
    "tune --dtype") words="f32 bf16" ;;
    "tune --backend") words="cpu ref onednn" ;;
    "tune --checkpointing") words="auto on off" ;;
    "tune --mix-by") words="change factors" ;;
    "tune --lr-schedule") words="constant linear cosine" ;;
    "tune --loss") words="reward distance hinge" ;;
    "tune --loss") words="reward distance hinge" ;;
    "tune --loss") words="reward distance hinge" ;;
    "tune --loss") words="reward distance hinge" ;;
    "tune --loss") words="reward distance hinge" ;;
    "bench --keep") words="best all none" ;;
    "score --dtype") words="f32 bf16" ;;
    "score --backend") words="cpu ref onednn" ;;
    "convert --dtype") words="keep f32 f16 bf16" ;;
    "convert --lora-format") words="kohya peft diffusers processor" ;;
    "run --dtype") words="f32 bf16" ;;
    "run --backend") words="cpu ref onednn" ;;
    "run --sampling-method") words="auto ddim ddpm pndm lms euler euler-ancestral heun dpm2 dpm2-ancestral dpm++2m dpm++2m-sde dpm++2s dpm++2s-sde deis unipc lcm tcd flow-euler flow-euler-sde flow-heun" ;;
    esac
    if [ -z "$words" ] && [[ $cur == -* ]]; then
        case ${COMP_WORDS[1]} in
        generate) words=" --prompt --prompts-file --negative-prompt --prompt-weighting --long-prompt --clip-skip --model --variant --prediction --output --width --height --init-img --strength --mask --init-latents --paste --steps --timesteps --cfg-scale --guidance-rescale --original-size --crop-top-left --target-size --negative-original-size --negative-crop-top-left --negative-target-size --aesthetic-score --negative-aesthetic-score --seed --sampling-method --scheduler --eta --steer --reward --combine --reward-timeout --particles --nfe --time --first-particle --lora --lora-merge --lora-partial --embedding --vae --preview-decoder --batch-size --threads --dtype --backend --memory-limit --plan --resume --previews --no-previews --lambda --lambda --potential --ess-threshold --resampling --score-every --score-start --score-end --score-steps --gradient-scale --gradient-form --gradient-clip --gradient-start --gradient-end --preset --lambda --gradient-scale --gradient-form --gradient-clip --gradient-start --gradient-end --lambda --gradient-scale --gradient-form --gradient-clip --gradient-start --gradient-end --ess-threshold --resampling --preset --lambda --gradient-scale --gradient-form --gradient-clip --gradient-start --gradient-end --ess-threshold --resampling --tempering --tempering-rate --tempering-start --preset --lambda --gradient-scale --gradient-form --gradient-clip --gradient-start --gradient-end --lambda --candidates --choice --carry --no-carry --preset --lambda --block --candidates --choice --preset --beams --duplicate --oversample --widen --search --drop --replace --preset --init --at-once --preset --lambda --rollouts --branch-steps --widening --widening-power --max-nodes --build --tempering --epsilon --estimate --preset --lambda --rollouts --branch-steps --widening --widening-power --max-nodes --exploration --backup --final --preset --rounds --neighbors --pivots --metric --similarity --distance --patience --rounds --preset --paths --branches --level --forward --backward --rounds --preset --lambda --iterations --learning-rate --momentum --gradient-clip --regularization --rounds --preset --lambda --chains --burn-in --chain-steps --chain-size --gradient-scale --gradient-form --gradient-clip --gradient-start --gradient-end --ess-threshold --resampling --preset --candidates --weights --temperature --until --rounds --preset --config --json --help" ;;
        tune) words=" --method --prompt --prompts --eval-prompts --negative-prompt --reward --combine --reward-timeout --balance --eval-reward --diversity-clip --rounds --time --early-stop --eval-every --eval-samples --eval-seed --sweep --no-sweep --output --name --lora-format --train --rank --alpha --targets --init --init-lora --save-every --keep --model --variant --prediction --vae --width --height --steps --timesteps --cfg-scale --clip-skip --sampling-method --scheduler --eta --seed --batch-size --threads --dtype --backend --memory-limit --checkpointing --plan --resume --mix --mix-by --batch --accum --lr --weight-decay --beta1 --beta2 --adam-eps --clip --warmup --lr-schedule --lr-updates --ema --kl --l2 --trunc --loss --loss-target --unit-gradient --k --loss --loss-target --unit-gradient --renoise --loss --loss-target --unit-gradient --from --to --loss --loss-target --unit-gradient --k --jump-early --loss --loss-target --unit-gradient --updates --passes --clip-range --row-fraction --group --track --track-least --advantage-clip --group --levels --group --beta --clip-range --same-noise --no-same-noise --row-fraction --beta --levels --updates --group --old-rise --old-most --track --track-least --advantage-clip --config --json --help" ;;
        bench) words=" --output --plan --only --budgets --seeds --limit --batch --time-limit --keep --trees --threads --config --json --help" ;;
        score) words=" --reward --combine --reward-timeout --prompt --recursive --keep --copy-to --csv --threads --dtype --backend --config --json --help" ;;
        report) words=" --config --json --help" ;;
        info) words=" --config --json --help" ;;
        convert) words=" --dtype --variant --lora-format --overwrite --config --json --help" ;;
        run) words=" --model --in --out --taps --grad --dtype --backend --threads --repeat --lora --lora-merge --lora-partial --embedding --text --max-length --config --steps --begin --mu --eta --timesteps --sampling-method --json --help" ;;
        esac
    fi
    if [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
    else
        COMPREPLY=($(compgen -f -- "$cur"))
    fi
}
complete -o filenames -F _kac kac
